//! What can be held: disks, persistent memory, shares and overlays, and the request of each of their steps.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    address::{LUNS_PER_CONTROLLER, ScsiAddress},
    ledger::Table,
    request::{DiskKind, GuestRequest, HostRequest, ShareId},
};

/// A file of the host, whatever path led to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileKey {
    /// `st_dev`; for a block device, its own number.
    pub device: u64,
    /// `st_ino`; for a block device 0.
    pub inode: u64,
}

/// One thing a container wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// A read-only layer, shared with every other container of the VM that uses the same file.
    Layer(LayerNeed),
    /// A disk mounted at a path of its own.
    Disk(DiskNeed),
    /// A Plan 9 share.
    Share(ShareNeed),
    /// Layers and a scratch, overlaid.
    Overlay(OverlayNeed),
    /// A mount of the VM, brought into a running container.
    ContainerMount(ContainerMountNeed),
}

impl Want {
    /// The file that becomes a device, where there is one.
    pub(crate) fn file(&self) -> Option<FileKey> {
        match self {
            Self::Layer(layer) => Some(layer.key),
            Self::Disk(disk) => Some(disk.key),
            Self::Share(_) | Self::Overlay(_) | Self::ContainerMount(_) => None,
        }
    }
}

/// A read-only layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerNeed {
    /// The image.
    pub path: PathBuf,
    /// Which file that is.
    pub key: FileKey,
    /// Its length: whether it fits a persistent-memory device.
    pub bytes: u64,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskNeed {
    /// The image or block device.
    pub path: PathBuf,
    /// Which file that is.
    pub key: FileKey,
    /// Image or block device.
    pub kind: DiskKind,
    /// Where it is mounted.
    pub guest_path: String,
    /// Mounted read-only.
    pub read_only: bool,
    /// The file is deleted once the disk is out.
    pub auto_manage: bool,
}

/// A share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareNeed {
    /// The directory.
    pub path: PathBuf,
    /// Where it is mounted.
    pub guest_path: String,
    /// Served read-only.
    pub read_only: bool,
    /// The only names served.
    pub allowed_names: Option<Vec<String>>,
}

/// Combined layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayNeed {
    /// Where the overlay is mounted.
    pub root: String,
    /// Guest paths of the layers, topmost first.
    pub layers: Vec<String>,
    /// Guest path of the scratch.
    pub scratch: String,
}

/// A further mount of a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerMountNeed {
    /// Which container.
    pub container: String,
    /// What: a path of the VM, or a `sandbox://` path.
    pub source: String,
    /// Where in the container.
    pub destination: String,
    /// Mounted read-only.
    pub read_only: bool,
}

/// A mount of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) guest_path: String,
    pub(crate) read_only: bool,
}

/// A kind of device, as the slot machine sees it. A step that is `None` does not exist for the kind.
pub(crate) trait Device: Clone + fmt::Debug {
    /// What two needs of one device have in common.
    type Key: Clone + Ord + fmt::Debug;
    /// Where the device sits.
    type Place: Copy + fmt::Debug;
    const TABLE: Table;

    fn key(&self) -> Self::Key;
    /// The place of slot `index`; `serial` never repeats in one VM.
    fn place(index: usize, serial: u64) -> Self::Place;
    /// Joins another need for the same device. `fixed`: it is attached, or about to be, as it is.
    fn join(&mut self, other: &Self, fixed: bool) -> Result<(), String>;

    fn attach(&self, place: Self::Place) -> Option<HostRequest>;
    fn mount(&self, place: Self::Place, at: &At) -> GuestRequest;
    fn unmount(&self, place: Self::Place, at: &At) -> GuestRequest;
    fn eject(&self, place: Self::Place) -> Option<GuestRequest>;
    fn detach(&self, place: Self::Place) -> Option<HostRequest>;
    /// Deletes the file behind it, where somebody manages that.
    fn delete(&self) -> Option<HostRequest>;
    /// The file of [`Device::delete`] is gone.
    fn forget_file(&mut self) {}
}

/// A SCSI disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    pub(crate) key: FileKey,
    pub(crate) kind: DiskKind,
    pub(crate) read_only: bool,
    pub(crate) auto_manage: bool,
    /// It is a layer for somebody: its content must stay as it is.
    pub(crate) layer: bool,
    /// The combined layers that write to it, by their root.
    pub(crate) scratch_of: Option<String>,
}

impl Device for Disk {
    type Key = FileKey;
    type Place = ScsiAddress;
    const TABLE: Table = Table::Scsi;

    fn key(&self) -> FileKey {
        self.key
    }

    fn place(index: usize, _serial: u64) -> ScsiAddress {
        let luns = usize::from(LUNS_PER_CONTROLLER);
        // The table has at most 4 × 64 slots.
        ScsiAddress {
            controller: (index / luns) as u8,
            lun: (index % luns) as u8,
        }
    }

    fn join(&mut self, other: &Self, fixed: bool) -> Result<(), String> {
        let changes = |disk: &Self| !disk.read_only || disk.auto_manage;
        if (self.layer || other.layer) && (changes(self) || changes(other)) {
            return Err(format!(
                "{} cannot be a read-only layer and a writable or auto-managed disk at the same time",
                self.path.display()
            ));
        }
        if self.read_only && !other.read_only {
            if fixed {
                return Err(format!(
                    "{} is already attached read-only and cannot become writable while it is held",
                    self.path.display()
                ));
            }
            self.read_only = false;
        }
        self.auto_manage |= other.auto_manage;
        self.layer |= other.layer;
        Ok(())
    }

    fn attach(&self, address: ScsiAddress) -> Option<HostRequest> {
        let (path, kind, read_only) = (self.path.clone(), self.kind, self.read_only);
        Some(HostRequest::AttachScsi {
            address,
            path,
            kind,
            read_only,
        })
    }

    fn mount(&self, address: ScsiAddress, at: &At) -> GuestRequest {
        GuestRequest::MountScsi {
            address,
            guest_path: at.guest_path.clone(),
            read_only: at.read_only,
        }
    }

    fn unmount(&self, address: ScsiAddress, at: &At) -> GuestRequest {
        GuestRequest::UnmountScsi {
            address,
            guest_path: at.guest_path.clone(),
            read_only: at.read_only,
        }
    }

    fn eject(&self, address: ScsiAddress) -> Option<GuestRequest> {
        Some(GuestRequest::EjectScsi { address })
    }

    fn detach(&self, address: ScsiAddress) -> Option<HostRequest> {
        Some(HostRequest::DetachScsi { address })
    }

    fn delete(&self) -> Option<HostRequest> {
        self.auto_manage.then(|| HostRequest::DeleteFile {
            path: self.path.clone(),
        })
    }

    fn forget_file(&mut self) {
        self.auto_manage = false;
    }
}

/// A persistent-memory device with a read-only layer.
#[derive(Debug, Clone)]
pub(crate) struct Pmem {
    pub(crate) path: PathBuf,
    pub(crate) key: FileKey,
}

impl Device for Pmem {
    type Key = FileKey;
    type Place = u32;
    const TABLE: Table = Table::Vpmem;

    fn key(&self) -> FileKey {
        self.key
    }

    fn place(index: usize, _serial: u64) -> u32 {
        // The table has at most 128 slots.
        index as u32
    }

    fn join(&mut self, _other: &Self, _fixed: bool) -> Result<(), String> {
        Ok(())
    }

    fn attach(&self, index: u32) -> Option<HostRequest> {
        Some(HostRequest::AttachVpmem {
            index,
            path: self.path.clone(),
        })
    }

    fn mount(&self, index: u32, at: &At) -> GuestRequest {
        GuestRequest::MountVpmem {
            index,
            guest_path: at.guest_path.clone(),
        }
    }

    fn unmount(&self, index: u32, at: &At) -> GuestRequest {
        GuestRequest::UnmountVpmem {
            index,
            guest_path: at.guest_path.clone(),
        }
    }

    fn eject(&self, _index: u32) -> Option<GuestRequest> {
        None
    }

    fn detach(&self, index: u32) -> Option<HostRequest> {
        Some(HostRequest::DetachVpmem { index })
    }

    fn delete(&self) -> Option<HostRequest> {
        None
    }
}

/// A Plan 9 export.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) allowed_names: Option<Vec<String>>,
}

impl Device for Share {
    type Key = (PathBuf, bool, Option<Vec<String>>);
    type Place = ShareId;
    const TABLE: Table = Table::Shares;

    fn key(&self) -> Self::Key {
        (self.path.clone(), self.read_only, self.allowed_names.clone())
    }

    fn place(_index: usize, serial: u64) -> ShareId {
        ShareId(serial)
    }

    fn join(&mut self, _other: &Self, _fixed: bool) -> Result<(), String> {
        Ok(())
    }

    fn attach(&self, share: ShareId) -> Option<HostRequest> {
        let (path, allowed_names) = (self.path.clone(), self.allowed_names.clone());
        Some(HostRequest::AddShare {
            share,
            path,
            read_only: self.read_only,
            allowed_names,
        })
    }

    fn mount(&self, share: ShareId, at: &At) -> GuestRequest {
        GuestRequest::MountShare {
            share,
            guest_path: at.guest_path.clone(),
            read_only: at.read_only,
        }
    }

    fn unmount(&self, share: ShareId, at: &At) -> GuestRequest {
        GuestRequest::UnmountShare {
            share,
            guest_path: at.guest_path.clone(),
            read_only: at.read_only,
        }
    }

    fn eject(&self, _share: ShareId) -> Option<GuestRequest> {
        None
    }

    fn detach(&self, share: ShareId) -> Option<HostRequest> {
        Some(HostRequest::RemoveShare { share })
    }

    fn delete(&self) -> Option<HostRequest> {
        None
    }
}

/// Combined layers: no device of the host, only a mount of the guest.
#[derive(Debug, Clone)]
pub(crate) struct Overlay(pub(crate) OverlayNeed);

impl Device for Overlay {
    type Key = String;
    type Place = ();
    const TABLE: Table = Table::Overlays;

    fn key(&self) -> String {
        self.0.root.clone()
    }

    fn place(_index: usize, _serial: u64) {}

    fn join(&mut self, _other: &Self, _fixed: bool) -> Result<(), String> {
        Err(format!("{} has combined layers already", self.0.root))
    }

    fn attach(&self, (): ()) -> Option<HostRequest> {
        None
    }

    fn mount(&self, (): (), _at: &At) -> GuestRequest {
        let OverlayNeed {
            root,
            layers,
            scratch,
        } = self.0.clone();
        GuestRequest::CombineLayers {
            root,
            layers,
            scratch,
        }
    }

    fn unmount(&self, (): (), _at: &At) -> GuestRequest {
        GuestRequest::RemoveCombinedLayers {
            root: self.0.root.clone(),
        }
    }

    fn eject(&self, (): ()) -> Option<GuestRequest> {
        None
    }

    fn detach(&self, (): ()) -> Option<HostRequest> {
        None
    }

    fn delete(&self) -> Option<HostRequest> {
        None
    }
}
