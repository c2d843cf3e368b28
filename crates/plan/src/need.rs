//! What a container needs, before any slot is chosen.

use std::path::PathBuf;

use crate::facts::FileId;

/// Everything one container needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Layers and scratch, where the root filesystem is made of them.
    pub layers: Option<Layers>,
    /// Disks of mounts, by mount index.
    pub disks: Vec<DiskNeed>,
    /// Shares: the root's first, then those of mounts by index.
    pub shares: Vec<ShareNeed>,
}

/// A root filesystem of layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// Read-only layers, topmost first.
    pub read_only: Vec<LayerNeed>,
    /// The scratch disk.
    pub scratch: LayerNeed,
    /// Where the scratch is mounted in the guest; on the host, in process isolation: `<bundle>/scratch`.
    pub scratch_path: String,
    /// Where the overlay is mounted in the guest; on the host, in process isolation: `<bundle>/rootfs`.
    pub root_path: String,
}

/// An image of a layer or a scratch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerNeed {
    /// The image file.
    pub host_path: PathBuf,
    /// Which file that is.
    pub identity: FileId,
    /// Its length.
    pub bytes: u64,
}

/// What a disk is on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskSource {
    /// An image file.
    Virtual,
    /// A block device.
    Physical,
}

/// A disk for a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskNeed {
    /// The mount's index in the spec.
    pub mount_index: usize,
    /// The image file or block device.
    pub host_path: PathBuf,
    /// Which file that is.
    pub identity: FileId,
    /// Where it is mounted in the guest.
    pub guest_path: String,
    /// Image or device.
    pub source: DiskSource,
    /// Mounted read-only.
    pub read_only: bool,
    /// Its file is deleted on release.
    pub auto_manage: bool,
}

/// A share for a mount, or for the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareNeed {
    /// The mount's index in the spec; `None` for the root.
    pub mount_index: Option<usize>,
    /// The directory.
    pub host_path: PathBuf,
    /// Where it is mounted in the guest.
    pub guest_path: String,
    /// Served read-only.
    pub read_only: bool,
    /// The only names served; `None` serves everything.
    pub allowed_names: Option<Vec<String>>,
}
