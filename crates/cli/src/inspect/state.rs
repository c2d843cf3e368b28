//! The state as OCI runtimes print it.
//!
//! Source: OCI runtime specification, runtime.md, "State"; `paused` and the members `rootfs` and `created` are runc's.

use std::collections::BTreeMap;

use cofferdam_owner::Isolation;
use serde::Serialize;

use super::Inspected;

/// What `state` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    oci_version: String,
    id: String,
    /// The process that stands for the container on this host: the hypervisor, or in process isolation its owner; 0 for
    /// one that has stopped.
    pid: u32,
    status: &'static str,
    bundle: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rootfs: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl From<Inspected> for State {
    fn from(inspected: Inspected) -> Self {
        let status = match inspected.status.as_str() {
            "starting" if inspected.guest_root.is_none() => "creating",
            // It is being started; the specification has no word for that.
            "created" | "starting" => "created",
            "running" => "running",
            "paused" => "paused",
            _ => "stopped",
        };
        let process = match inspected.isolation {
            Some(Isolation::Process) => inspected.owner,
            _ => inspected.hypervisor,
        };
        let pid = process.filter(|process| status != "stopped" && process.alive);
        Self {
            oci_version: inspected.oci_version,
            id: inspected.id,
            pid: pid.map_or(0, |process| process.pid),
            status,
            bundle: inspected.bundle.unwrap_or_default(),
            rootfs: inspected.rootfs,
            created: inspected.created_at,
            annotations: inspected.annotations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::document::Process;

    fn state(status: &str, guest_root: Option<&str>, isolation: Isolation) -> (u32, &'static str) {
        let process = |pid| Some(Process { pid, alive: true });
        let inspected = Inspected {
            status: status.to_owned(),
            guest_root: guest_root.map(str::to_owned),
            isolation: Some(isolation),
            owner: process(1),
            hypervisor: process(2),
            ..Inspected::default()
        };
        let state = State::from(inspected);
        (state.pid, state.status)
    }

    #[test]
    fn every_status_is_one_that_tools_know_and_what_has_stopped_has_no_process() {
        let root = Some("/run/gcs/c/1");
        let vm = Isolation::Vm;
        assert_eq!(state("starting", None, vm), (2, "creating"));
        assert_eq!(state("starting", root, vm), (2, "created"));
        assert_eq!(state("created", root, vm), (2, "created"));
        assert_eq!(state("running", root, vm), (2, "running"));
        assert_eq!(state("paused", root, vm), (2, "paused"));
        assert_eq!(state("stopped", root, vm), (0, "stopped"));
        assert_eq!(state("dead", None, vm), (0, "stopped"));
        assert_eq!(state("running", None, Isolation::Process), (1, "running"));
    }
}
