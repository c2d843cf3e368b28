//! What becomes of a container under its limits: an extension of cofferdam's own agent (GCS bridge protocol §13.9).
//!
//! Only a guest with the capability [`super::GuestDefinedCapabilities::cofferdam_limits`] knows these. A guest never
//! sends them by itself: a notification that its host does not know would end the bridge (§6).

use serde::{Deserialize, Serialize};

use super::{Payload, WAIT_FOR_OOM};
use crate::{MessageType, json::is_zero};

/// Waits until the kernel has killed more processes of a container for want of memory than the host knows of. Like
/// `WaitForProcess` it is answered when that happens, or when nothing more can happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitForOom {
    /// How many the host knows of.
    #[serde(skip_serializing_if = "is_zero")]
    pub kills_seen: u64,
}

impl Payload for WaitForOom {
    const TYPE: MessageType = WAIT_FOR_OOM;
    type Reply = WaitForOomReply;
}

/// More processes have been killed, or the container has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitForOomReply {
    /// How many processes of the container have been killed since it was created.
    pub kills: u64,
    /// The container's first process has ended: nothing follows.
    pub ended: bool,
}

/// Whether a container ran out of memory: a property of it, also after its end, until its state is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct OutOfMemory {
    /// How many of its processes the kernel has killed for want of memory, its own limit's or the VM's.
    pub kills: u64,
    /// Its first process was one of them, so this is why the container has ended.
    pub init_killed: bool,
}
