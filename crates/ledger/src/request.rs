//! What the ledger asks of the host and of the guest. The ledger only names these; a backend and the guest
//! agent perform them, and only their outcomes come back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::address::ScsiAddress;

/// What stands behind a SCSI disk on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskKind {
    /// An image file: VHD, VHDX, raw or qcow2.
    Virtual,
    /// A block device of the host, passed through.
    Physical,
}

/// A share's name on the wire: decimal digits of a counter that never repeats in one VM (gcs-protocol 7.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShareId(pub u64);

impl std::fmt::Display for ShareId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One step of the host. Every removal is idempotent: removing what is not there succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostRequest {
    /// Plug a disk in.
    AttachScsi {
        /// Where.
        address: ScsiAddress,
        /// The image file or block device.
        path: PathBuf,
        /// Which of the two it is.
        kind: DiskKind,
        /// Whether the guest may not write.
        read_only: bool,
    },
    /// Pull a disk out. The guest has ejected it.
    DetachScsi {
        /// Where.
        address: ScsiAddress,
    },
    /// Plug a read-only image in as persistent memory.
    AttachVpmem {
        /// Device number, from 0.
        index: u32,
        /// The image file.
        path: PathBuf,
    },
    /// Pull a persistent-memory device out.
    DetachVpmem {
        /// Device number, from 0.
        index: u32,
    },
    /// Export a directory over Plan 9.
    AddShare {
        /// The export's name.
        share: ShareId,
        /// The host directory.
        path: PathBuf,
        /// Whether writes are refused by the server.
        read_only: bool,
        /// The only names visible in the directory; `None` shows everything.
        allowed_names: Option<Vec<String>>,
    },
    /// Withdraw an export.
    RemoveShare {
        /// The export's name.
        share: ShareId,
    },
    /// Delete an auto-managed disk's file; its disk has been detached.
    DeleteFile {
        /// The file.
        path: PathBuf,
    },
}

/// One step of the guest. Every removal is idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestRequest {
    /// Mount the disk at `address` on `guest_path`.
    MountScsi {
        /// Which disk.
        address: ScsiAddress,
        /// Where in the guest.
        guest_path: String,
        /// Read-only mount.
        read_only: bool,
    },
    /// Unmount it there.
    UnmountScsi {
        /// Which disk.
        address: ScsiAddress,
        /// Where in the guest.
        guest_path: String,
        /// As it was mounted.
        read_only: bool,
    },
    /// Let go of the disk, so that the host may pull it out.
    EjectScsi {
        /// Which disk.
        address: ScsiAddress,
    },
    /// Mount persistent memory, read-only.
    MountVpmem {
        /// Device number.
        index: u32,
        /// Where in the guest.
        guest_path: String,
    },
    /// Unmount it there.
    UnmountVpmem {
        /// Device number.
        index: u32,
        /// Where in the guest.
        guest_path: String,
    },
    /// Mount a Plan 9 share.
    MountShare {
        /// Which export.
        share: ShareId,
        /// Where in the guest.
        guest_path: String,
        /// Read-only mount.
        read_only: bool,
    },
    /// Unmount it there.
    UnmountShare {
        /// Which export.
        share: ShareId,
        /// Where in the guest.
        guest_path: String,
        /// As it was mounted.
        read_only: bool,
    },
    /// Overlay layers.
    CombineLayers {
        /// Where the overlay is mounted.
        root: String,
        /// Lower directories, topmost first.
        layers: Vec<String>,
        /// The scratch: upper and work live below it.
        scratch: String,
    },
    /// Take the overlay away.
    RemoveCombinedLayers {
        /// Where the overlay is mounted.
        root: String,
    },
    /// Bring a mount of the VM into a running container.
    AddContainerMount {
        /// Which container.
        container: String,
        /// What: a path of the VM, or a `sandbox://` path.
        source: String,
        /// Where in the container.
        destination: String,
        /// Read-only mount.
        read_only: bool,
    },
    /// Take it out again. A container that has ended has no mounts.
    RemoveContainerMount {
        /// Which container.
        container: String,
        /// What.
        source: String,
        /// Where in the container.
        destination: String,
        /// As it was mounted.
        read_only: bool,
    },
}

impl GuestRequest {
    /// The container it is for; `None` where it is for the VM itself.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        match self {
            Self::AddContainerMount { container, .. } | Self::RemoveContainerMount { container, .. } => {
                Some(container)
            }
            _ => None,
        }
    }
}
