//! The JSON document's parts. Members stand in the order they are written in; paths of the host that are not text
//! are shown with replacement characters.

use std::path::Path;

use cofferdam_ledger::{
    Usage,
    address::ScsiAddress,
    request::{DiskKind, HostRequest},
};
use cofferdam_plan::{DiskNeed, DiskSource, LayerNeed, ShareNeed};
use serde::Serialize;

/// What the container takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Where the container lives inside the VM.
    pub container_root: String,
    /// Read-only layers, topmost first.
    pub layers: Vec<LayerDocument>,
    /// The scratch disk, where the root filesystem is made of layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scratch: Option<LayerDocument>,
    /// Disks of mounts, by mount index.
    pub disks: Vec<DiskDocument>,
    /// Plan 9 shares: the root's first, then those of mounts by index.
    pub shares: Vec<ShareDocument>,
}

/// A layer, or the scratch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerDocument {
    /// The image.
    pub host_path: String,
    /// Where it is mounted in the VM; absent in process isolation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_path: Option<String>,
    /// Its device; absent in process isolation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceDocument>,
}

/// A disk of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskDocument {
    /// The mount.
    pub mount_index: usize,
    /// The image or block device.
    pub host_path: String,
    /// Where it is mounted in the VM.
    pub guest_path: String,
    /// Image or block device.
    pub kind: DiskKind,
    /// Mounted read-only.
    pub read_only: bool,
    /// The file is deleted on release.
    pub auto_manage: bool,
    /// Its device.
    pub device: DeviceDocument,
}

/// A Plan 9 share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareDocument {
    /// The mount; absent for the root filesystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_index: Option<usize>,
    /// The directory.
    pub host_path: String,
    /// Where it is mounted in the VM.
    pub guest_path: String,
    /// Served read-only.
    pub read_only: bool,
    /// The only names served; absent where everything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_names: Option<Vec<String>>,
}

/// A device's place in the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum DeviceDocument {
    /// Persistent memory.
    Vpmem {
        /// Device number, from 0.
        index: u32,
    },
    /// A SCSI disk.
    Scsi {
        /// Controller index.
        controller: u8,
        /// LUN on that controller.
        lun: u8,
    },
}

impl DeviceDocument {
    /// The device a host step attaches; `None` for a share.
    pub(crate) fn attached_by(request: &HostRequest) -> Option<Self> {
        match request {
            HostRequest::AttachScsi { address, .. } => Some(Self::from(*address)),
            HostRequest::AttachVpmem { index, .. } => Some(Self::Vpmem { index: *index }),
            _ => None,
        }
    }
}

impl From<ScsiAddress> for DeviceDocument {
    fn from(ScsiAddress { controller, lun }: ScsiAddress) -> Self {
        Self::Scsi { controller, lun }
    }
}

/// Slots used, of those there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitsDocument {
    /// SCSI disks.
    pub scsi: Usage,
    /// Persistent memory.
    pub vpmem: Usage,
}

impl LayerDocument {
    pub(crate) fn new(layer: &LayerNeed, guest: Option<(String, DeviceDocument)>) -> Self {
        let (guest_path, device) = guest.unzip();
        Self {
            host_path: text(&layer.host_path),
            guest_path,
            device,
        }
    }
}

impl DiskDocument {
    pub(crate) fn new(disk: &DiskNeed, device: DeviceDocument) -> Self {
        Self {
            mount_index: disk.mount_index,
            host_path: text(&disk.host_path),
            guest_path: disk.guest_path.clone(),
            kind: match disk.source {
                DiskSource::Virtual => DiskKind::Virtual,
                DiskSource::Physical => DiskKind::Physical,
            },
            read_only: disk.read_only,
            auto_manage: disk.auto_manage,
            device,
        }
    }
}

impl From<&ShareNeed> for ShareDocument {
    fn from(share: &ShareNeed) -> Self {
        Self {
            mount_index: share.mount_index,
            host_path: text(&share.host_path),
            guest_path: share.guest_path.clone(),
            read_only: share.read_only,
            allowed_names: share.allowed_names.clone(),
        }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
