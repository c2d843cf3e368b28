//! All that a pod knows of its containers, for whoever shows them.

use std::{collections::BTreeMap, path::PathBuf, time::SystemTime};

use cofferdam_container::Held;

use crate::{Pod, Status, container::Container, process::Process};

/// A container as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    /// Its name.
    pub id: String,
    /// Its bundle on the host.
    pub bundle: PathBuf,
    /// Where it lives in the VM.
    pub root: String,
    /// The version of the OCI runtime specification its spec names; empty where it names none.
    pub oci_version: String,
    /// Its spec's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether its init has a terminal.
    pub terminal: bool,
    /// When it was created.
    pub created_at: SystemTime,
    /// Its init.
    pub init: ProcessView,
    /// Its further processes, by name.
    pub execs: BTreeMap<String, ProcessView>,
    /// What it holds of the VM: what its spec took, then what was added while it ran. Some of it may have been given back.
    pub held: Vec<Held>,
}

/// A process as it is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessView {
    /// Its state.
    pub status: Status,
    /// When it began to run, if it ever has.
    pub started_at: Option<SystemTime>,
}

impl Pod {
    /// Every container, by name, but for those that are just being created or deleted.
    #[must_use]
    pub fn inspect(&self) -> Vec<ContainerView> {
        let containers: Vec<_> = self.containers().values().flatten().cloned().collect();
        containers.iter().map(|container| view(container)).collect()
    }
}

fn view(container: &Container) -> ContainerView {
    let execs = container.execs();
    let execs = execs
        .iter()
        .filter_map(|process| Some((process.name.exec.clone()?, of_process(process))));
    let mut held = container.held.to_vec();
    held.extend(container.mounts.held());
    ContainerView {
        id: container.id.clone(),
        bundle: container.bundle.clone(),
        root: container.root.clone(),
        oci_version: container.spec.oci_version().to_owned(),
        annotations: container.spec.annotations(),
        terminal: container.init.endpoints.terminal,
        created_at: container.created_at,
        init: of_process(&container.init),
        execs: execs.collect(),
        held,
    }
}

fn of_process(process: &Process) -> ProcessView {
    ProcessView {
        status: process.status(),
        started_at: process.started_at(),
    }
}
