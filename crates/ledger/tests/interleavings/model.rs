//! A host and a guest as the ledger's requests leave them, and what may be asked of them when.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use cofferdam_ledger::{
    Request, Table,
    address::ScsiAddress,
    request::{GuestRequest as G, HostRequest as H},
};

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It takes effect, and says so.
    Done,
    /// It has no effect, and says so.
    Failed,
    /// It takes effect, and the answer is an error all the same.
    FailedWithEffect,
}

/// A failure with what it concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Injected {
    pub(crate) table: Table,
    pub(crate) slot: usize,
    pub(crate) guest_path: Option<String>,
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "injected: {} {} {:?}", self.table, self.slot, self.guest_path)
    }
}

impl std::error::Error for Injected {}

/// A device by its table and its place there.
type Device = (Table, u64);

/// Host and guest.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Devices that are plugged in, with their file and whether the guest may write.
    attached: BTreeMap<Device, (PathBuf, bool)>,
    /// Devices somebody asked to plug in and nobody has surely pulled out since.
    maybe_attached: BTreeSet<Device>,
    /// Devices whose plugging in was never answered by success.
    unsure: BTreeSet<Device>,
    /// Devices the guest has let go of; the flag: and has said so.
    ejected: BTreeMap<Device, bool>,
    /// Guest paths with something mounted.
    mounted: BTreeMap<String, Device>,
    /// Guest paths where a mount was asked for and none has surely gone since.
    maybe_mounted: BTreeMap<String, Device>,
    /// Names of shares that have been used; none is used again.
    used_shares: BTreeSet<u64>,
    /// Times a device came, and times one went.
    attaches: usize,
    detaches: usize,
}

/// A request taken apart.
enum Asked<'a> {
    Attach(Device, &'a PathBuf, bool),
    Mount(Device, Cow<'a, str>),
    Unmount(Device, Cow<'a, str>),
    Eject(Device),
    Detach(Device),
    Delete(&'a PathBuf),
}

fn asked(request: &Request) -> Asked<'_> {
    // Combined layers and mounts of containers are mounts without a device.
    let overlay = (Table::Overlays, 0);
    let injected = (Table::ContainerMounts, 0);
    let place = |container: &str, destination: &str| Cow::Owned(format!("{container}:{destination}"));
    let scsi = |at: &ScsiAddress| (Table::Scsi, u64::from(at.controller) * 64 + u64::from(at.lun));
    let vpmem = |index: &u32| (Table::Vpmem, u64::from(*index));
    match request {
        Request::Host(request) => match request {
            H::AttachScsi {
                address,
                path,
                read_only,
                ..
            } => Asked::Attach(scsi(address), path, !read_only),
            H::DetachScsi { address } => Asked::Detach(scsi(address)),
            H::AttachVpmem { index, path } => Asked::Attach(vpmem(index), path, false),
            H::DetachVpmem { index } => Asked::Detach(vpmem(index)),
            H::AddShare {
                share,
                path,
                read_only,
                ..
            } => Asked::Attach((Table::Shares, share.0), path, !read_only),
            H::RemoveShare { share } => Asked::Detach((Table::Shares, share.0)),
            H::DeleteFile { path } => Asked::Delete(path),
        },
        Request::Guest(request) => match request {
            G::MountScsi {
                address, guest_path, ..
            } => Asked::Mount(scsi(address), guest_path.into()),
            G::UnmountScsi {
                address, guest_path, ..
            } => Asked::Unmount(scsi(address), guest_path.into()),
            G::EjectScsi { address } => Asked::Eject(scsi(address)),
            G::MountVpmem { index, guest_path } => Asked::Mount(vpmem(index), guest_path.into()),
            G::UnmountVpmem { index, guest_path } => Asked::Unmount(vpmem(index), guest_path.into()),
            G::MountShare {
                share, guest_path, ..
            } => Asked::Mount((Table::Shares, share.0), guest_path.into()),
            G::UnmountShare {
                share, guest_path, ..
            } => Asked::Unmount((Table::Shares, share.0), guest_path.into()),
            G::CombineLayers { root, .. } => Asked::Mount(overlay, root.into()),
            G::RemoveCombinedLayers { root } => Asked::Unmount(overlay, root.into()),
            G::AddContainerMount {
                container,
                destination,
                ..
            } => Asked::Mount(injected, place(container, destination)),
            G::RemoveContainerMount {
                container,
                destination,
                ..
            } => Asked::Unmount(injected, place(container, destination)),
        },
    }
}

/// The guest path a request concerns, if it is a mount's.
pub(crate) fn mount_of(request: &Request) -> Option<String> {
    match asked(request) {
        Asked::Mount(_, path) | Asked::Unmount(_, path) => Some(path.into_owned()),
        _ => None,
    }
}

impl Model {
    /// Holds a request, as it is issued, to what may be asked now.
    pub(crate) fn check(&mut self, request: &Request) {
        match asked(request) {
            Asked::Attach(device, path, writable) => {
                assert!(
                    !self.maybe_attached.contains(&device),
                    "{device:?} attached twice"
                );
                let fresh = device.0 != Table::Shares || self.used_shares.insert(device.1);
                assert!(fresh, "share {} has been used before", device.1);
                self.check_one_view(device, path, writable);
                self.maybe_attached.insert(device);
                self.unsure.insert(device);
            }
            Asked::Mount(device, path) => {
                let without_device = matches!(device.0, Table::Overlays | Table::ContainerMounts);
                let there = without_device || self.attached.contains_key(&device);
                assert!(there, "{path} mounted from {device:?}, which is not there");
                let gone = self.ejected.get(&device) == Some(&true);
                assert!(!gone, "{path} mounted from an ejected device");
                assert!(!self.maybe_mounted.contains_key(&*path), "{path} mounted twice");
                self.maybe_mounted.insert(path.into_owned(), device);
            }
            Asked::Unmount(device, path) => {
                assert_eq!(
                    self.maybe_mounted.get(&*path),
                    Some(&device),
                    "{path} was never mounted"
                );
            }
            Asked::Eject(device) => {
                assert!(self.attached.contains_key(&device), "{device:?} is not there");
                self.check_unmounted(device);
            }
            Asked::Detach(device) => {
                assert!(self.maybe_attached.contains(&device), "{device:?} detached twice");
                self.check_unmounted(device);
                let let_go = device.0 != Table::Scsi || self.ejected.get(&device) == Some(&true);
                let never_seen = self.unsure.contains(&device);
                assert!(
                    let_go || never_seen,
                    "{device:?} detached before the guest let it go"
                );
            }
            Asked::Delete(path) => {
                let in_use = self.attached.values().any(|(attached, _)| attached == path);
                assert!(!in_use, "{} deleted while it is attached", path.display());
            }
        }
    }

    /// One file system is never shown to the guest by two devices when one of them can change it.
    fn check_one_view(&self, device: Device, path: &PathBuf, writable: bool) {
        let disks = self.attached.iter();
        for (other, (file, other_writable)) in disks.filter(|_| device.0 != Table::Shares) {
            let two_views = other.0 != Table::Shares && file == path;
            assert!(
                !two_views || !(writable || *other_writable),
                "{} is writable and on {device:?} and {other:?}",
                path.display()
            );
        }
    }

    fn check_unmounted(&self, device: Device) {
        let mounted = self.maybe_mounted.values().any(|from| *from == device);
        assert!(!mounted, "{device:?} is pulled out while it is mounted");
    }

    /// Performs a request; whether it is answered by success.
    pub(crate) fn perform(&mut self, request: &Request, fate: Fate) -> bool {
        let effect = fate != Fate::Failed;
        let success = fate == Fate::Done;
        match asked(request) {
            Asked::Attach(device, path, writable) => {
                if effect {
                    self.attached.insert(device, (path.clone(), writable));
                    self.attaches += 1;
                }
                if success {
                    self.unsure.remove(&device);
                }
            }
            // The guest has let go of it although its answer was an error.
            Asked::Mount(device, _) if self.ejected.contains_key(&device) => return false,
            Asked::Mount(device, path) => {
                if effect {
                    self.mounted.insert(path.into_owned(), device);
                }
            }
            Asked::Unmount(_, path) => {
                if effect {
                    self.mounted.remove(&*path);
                }
                if success {
                    self.maybe_mounted.remove(&*path);
                }
            }
            Asked::Eject(device) => {
                if effect {
                    self.ejected.insert(device, success);
                }
            }
            Asked::Detach(device) => {
                if effect && self.attached.remove(&device).is_some() {
                    self.detaches += 1;
                }
                if success {
                    self.maybe_attached.remove(&device);
                    self.unsure.remove(&device);
                    self.ejected.remove(&device);
                }
            }
            Asked::Delete(_) => {}
        }
        success
    }

    /// Whether something is mounted there.
    pub(crate) fn is_mounted(&self, guest_path: &str) -> bool {
        self.mounted.contains_key(guest_path)
    }

    /// Nothing is left on the host or in the guest.
    pub(crate) fn check_empty(&self) {
        assert!(self.attached.is_empty(), "left attached: {:?}", self.attached);
        assert!(self.mounted.is_empty(), "left mounted: {:?}", self.mounted);
        assert!(self.maybe_attached.is_empty() && self.maybe_mounted.is_empty());
        assert_eq!(self.attaches, self.detaches);
    }
}
