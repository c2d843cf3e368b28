//! The ledger shown: for inspection, for the journal, and for tests.

use serde::{Deserialize, Serialize};

use crate::{
    ledger::Table,
    request::HostRequest,
    state::{DeviceState, MountState},
};

/// Slots of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Slots that are not free.
    pub used: usize,
    /// Slots there are.
    pub total: usize,
}

/// Everything that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerView {
    /// SCSI disks.
    pub scsi: Usage,
    /// Persistent memory.
    pub vpmem: Usage,
    /// Each slot that is not free.
    pub slots: Vec<SlotView>,
}

/// One slot that is not free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Its table.
    pub table: Table,
    /// Its index there.
    pub slot: usize,
    /// Its generation.
    pub generation: u64,
    /// How far the device is.
    pub state: DeviceState,
    /// The host step that attaches it; `None` for combined layers and mounts of running containers.
    pub attach: Option<HostRequest>,
    /// How many hold it.
    pub holders: usize,
    /// Where it is mounted, or about to be.
    pub mounts: Vec<MountView>,
}

/// One mount of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountView {
    /// Where in the guest; `<container>:<destination>` in a running container.
    pub guest_path: String,
    /// Read-only.
    pub read_only: bool,
    /// How far it is.
    pub state: MountState,
    /// How many hold it.
    pub holders: usize,
}
