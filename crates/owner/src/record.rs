//! What an owner says of itself.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ProcessId;

/// `owner.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The container's or pod's name.
    pub id: String,
    /// The process that owns it.
    pub owner: ProcessId,
    /// Where its containers run.
    pub isolation: Isolation,
    /// The bundle it was made from.
    pub bundle: PathBuf,
    /// The hypervisor's process, once it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<ProcessId>,
    /// Directories of its own outside of this one: the hypervisor's sockets.
    #[serde(default)]
    pub directories: Vec<PathBuf>,
    /// Interfaces whose place adapters of its VM have taken, or were about to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirected: Vec<Redirected>,
}

/// An interface of a network namespace that leads to a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redirected {
    /// The namespace's file.
    pub namespace: PathBuf,
    /// The interface's name in it.
    pub interface: String,
    /// The number there of the device that it leads to, once it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<i32>,
}

/// Where containers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// In a utility VM.
    Vm,
    /// On this host, as processes.
    Process,
}
