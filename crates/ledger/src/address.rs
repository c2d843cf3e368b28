//! Where a device sits in the VM, and how many of each the VM has.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most SCSI controllers a utility VM has (shared with HCS: gcs-protocol section 7.1).
pub const MAX_SCSI_CONTROLLERS: u8 = 4;
/// LUNs on each SCSI controller.
pub const LUNS_PER_CONTROLLER: u8 = 64;
/// The most virtual persistent-memory devices a utility VM can have.
pub const MAX_VPMEM_DEVICES: u32 = 128;
/// Default number of virtual persistent-memory devices.
pub const DEFAULT_VPMEM_DEVICES: u32 = 64;
/// Default largest file, in bytes, that goes on a persistent-memory device: 4 GiB.
pub const DEFAULT_VPMEM_MAX_BYTES: u64 = 4 << 30;

/// A disk's place: LUN `lun` on controller `controller`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScsiAddress {
    /// Controller index, 0 to 3.
    pub controller: u8,
    /// LUN on that controller, 0 to 63.
    pub lun: u8,
}

impl fmt::Display for ScsiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SCSI {}:{}", self.controller, self.lun)
    }
}

/// How many devices a VM can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// SCSI controllers, each with [`LUNS_PER_CONTROLLER`] LUNs.
    pub scsi_controllers: u8,
    /// Persistent-memory devices.
    pub vpmem_devices: u32,
    /// Largest file, in bytes, that fits a persistent-memory device.
    pub vpmem_max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            scsi_controllers: MAX_SCSI_CONTROLLERS,
            vpmem_devices: DEFAULT_VPMEM_DEVICES,
            vpmem_max_bytes: DEFAULT_VPMEM_MAX_BYTES,
        }
    }
}
