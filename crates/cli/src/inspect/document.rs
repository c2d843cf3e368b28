//! A container as it is shown: from its owner, if that answers, and from what is written down.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use cofferdam_ledger::Usage;
use cofferdam_observe::{ContainerDocument, Device, Machine, ProcessDocument, rfc3339};
use cofferdam_owner::{
    About, Entry, Isolation, ProcessId, Record,
    control::{self, Question},
};
use serde::Serialize;
use serde_json::Value;

use crate::log_file;

/// All that is known of a container, or of an owner of several.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inspected {
    pub(crate) id: String,
    /// `starting`, `created`, `running`, `paused`, `stopped`; `dead` where its owner was killed.
    pub(crate) status: String,
    /// What there is to say about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_status: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bundle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rootfs: Option<String>,
    /// Where it lives in the VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) guest_root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) isolation: Option<Isolation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hypervisor: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) terminal: Option<bool>,
    pub(crate) oci_version: String,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Further processes in it.
    pub(crate) execs: BTreeMap<String, ProcessDocument>,
    /// The containers of a VM that is not for one of its owner's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) containers: Vec<ContainerDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scsi: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vpmem: Option<Usage>,
    /// Who holds which device of the VM.
    pub(crate) devices: Vec<Device>,
}

/// A process of this host.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) alive: bool,
}

impl From<ProcessId> for Process {
    fn from(process: ProcessId) -> Self {
        Self {
            pid: process.pid,
            alive: process.is_alive(),
        }
    }
}

impl Inspected {
    /// Whoever this directory is of.
    pub(crate) fn of(entry: &Entry) -> Result<Self> {
        let mut inspected = Self {
            id: entry.id(),
            log_path: Some(log_file::path_in(entry.dir()))
                .filter(|path| path.exists())
                .map(|path| path.to_string_lossy().into_owned()),
            ..Self::default()
        };
        if let Some(about) = entry.about() {
            inspected.written(about);
        }
        let is_alive = entry.is_alive();
        match entry.record() {
            Ok(record) => inspected.recorded(record),
            // An owner that was killed before it could write it, or that is just writing it.
            Err(_) if !is_alive => {}
            Err(error) => return Err(error).with_context(|| format!("container {}", inspected.id)),
        }
        if let Some(ended) = entry.ended() {
            inspected.status = "stopped".to_owned();
            inspected.exit_status = Some(ended.status);
            inspected.note = ended.reason;
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(ended.at_s);
            inspected.finished_at = Some(rfc3339(at));
        } else if !is_alive {
            inspected.status = "dead".to_owned();
            let id = &inspected.id;
            inspected.note = Some(format!(
                "its owner was killed; `cofferdam fsck {id}` says what it left, `cofferdam fsck --repair {id}` frees it"
            ));
        } else if inspected.isolation == Some(Isolation::Process) {
            inspected.status = "running".to_owned();
        } else {
            inspected.asked(control::ask(entry.dir(), &Question::Inspect));
        }
        Ok(inspected)
    }

    fn written(&mut self, about: About) {
        self.image = about.image;
        self.rootfs = about.rootfs;
        self.network = about.network;
        self.created_at = about.created_at;
        self.started_at = about.started_at;
        self.oci_version = about.oci_version;
        self.annotations = about.annotations;
    }

    fn recorded(&mut self, record: Record) {
        self.bundle = Some(record.bundle.to_string_lossy().into_owned());
        self.isolation = Some(record.isolation);
        self.owner = Some(record.owner.into());
        self.hypervisor = record.hypervisor.map(Process::from);
    }

    fn asked(&mut self, answer: Result<Machine, control::ControlError>) {
        let machine = match answer {
            Ok(machine) => machine,
            Err(error) => {
                // What was started and is not to be asked any more has ended.
                let (status, why) = match self.started_at {
                    None => ("starting", "it may have no VM yet"),
                    Some(_) => ("stopped", "its VM may be gone already"),
                };
                self.status = status.to_owned();
                self.note = Some(format!("{error}: {why}"));
                return;
            }
        };
        self.scsi = Some(machine.scsi);
        self.vpmem = Some(machine.vpmem);
        self.devices = machine.devices;
        let (own, others): (Vec<_>, Vec<_>) = machine
            .containers
            .into_iter()
            .partition(|container| container.id == self.id);
        self.status = match others.is_empty() {
            true => "starting",
            false => "running",
        }
        .to_owned();
        self.containers = others;
        for container in own {
            self.is(container);
        }
    }

    fn is(&mut self, container: ContainerDocument) {
        self.status = container.init.status;
        self.exit_status = container.init.exit_status;
        self.created_at = Some(container.created_at);
        self.started_at = container.init.started_at;
        self.finished_at = container.init.finished_at;
        self.bundle = Some(container.bundle);
        self.guest_root = Some(container.guest_root);
        self.terminal = Some(container.terminal);
        self.oci_version = container.oci_version;
        self.annotations = container.annotations;
        self.execs = container.execs;
    }
}
