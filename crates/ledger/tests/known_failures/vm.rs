//! A VM reduced to what the ledger must keep right. A step that a real host or guest could not survive panics here.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use cofferdam_ledger::{
    Lease, Ledger, Next, Request, Step, StepFailure, Want,
    address::{Limits, ScsiAddress},
    device::{ContainerMountNeed, DiskNeed, FileKey, LayerNeed, OverlayNeed, ShareNeed},
    request::{DiskKind, GuestRequest, HostRequest, ShareId},
};

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It succeeds.
    None,
    /// It fails and has done nothing.
    Before,
    /// It is done, and its answer is an error all the same.
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Device {
    Scsi(ScsiAddress),
    Vpmem(u32),
    Share(ShareId),
}

#[derive(Debug)]
struct Attached {
    path: PathBuf,
    read_only: bool,
    ejected: bool,
    was_mounted: bool,
}

/// The VM.
#[derive(Debug, Default)]
pub(crate) struct Vm {
    devices: BTreeMap<Device, Attached>,
    /// Guest path to its device and whether it is read-only.
    mounts: BTreeMap<String, (Device, bool)>,
    overlays: BTreeMap<String, BTreeSet<String>>,
    /// Mounts of containers, by container and destination, with their source.
    injected: BTreeMap<(String, String), String>,
    used_shares: BTreeSet<ShareId>,
    pub(crate) deleted: BTreeSet<PathBuf>,
    pub(crate) attaches: usize,
    pub(crate) detaches: usize,
    /// Every request that was performed, in order.
    pub(crate) log: Vec<Request>,
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("injected: {0}")]
pub(crate) struct Injected(String);

impl Vm {
    pub(crate) fn perform(&mut self, request: &Request, fault: Fault) -> Result<(), StepFailure> {
        self.log.push(request.clone());
        if fault != Fault::Before {
            match request {
                Request::Host(request) => self.host(request),
                Request::Guest(request) => self.guest(request),
            }
        }
        match fault {
            Fault::None => Ok(()),
            _ => Err(Arc::new(Injected(format!("{request:?}")))),
        }
    }

    fn host(&mut self, request: &HostRequest) {
        match request {
            HostRequest::AttachScsi {
                address,
                path,
                read_only,
                ..
            } => self.attach(Device::Scsi(*address), path, *read_only),
            HostRequest::AttachVpmem { index, path } => self.attach(Device::Vpmem(*index), path, true),
            HostRequest::AddShare {
                share,
                path,
                read_only,
                ..
            } => {
                assert!(
                    self.used_shares.insert(*share),
                    "share {share} has been used before"
                );
                self.attach(Device::Share(*share), path, *read_only);
            }
            HostRequest::DetachScsi { address } => self.detach(Device::Scsi(*address)),
            HostRequest::DetachVpmem { index } => self.detach(Device::Vpmem(*index)),
            HostRequest::RemoveShare { share } => self.detach(Device::Share(*share)),
            HostRequest::DeleteFile { path } => {
                let attached = self.devices.values().any(|device| device.path == *path);
                assert!(!attached, "{} is deleted while it is attached", path.display());
                self.deleted.insert(path.clone());
            }
        }
    }

    fn attach(&mut self, device: Device, path: &Path, read_only: bool) {
        assert!(!self.devices.contains_key(&device), "{device:?} is occupied");
        let is_share = matches!(device, Device::Share(_));
        let writable_twin = self.devices.iter().any(|(other, d)| {
            d.path == path && !matches!(other, Device::Share(_)) && !(d.read_only && read_only)
        });
        assert!(is_share || !writable_twin, "{} has two writers", path.display());
        self.attaches += 1;
        self.devices.insert(
            device,
            Attached {
                path: path.to_owned(),
                read_only,
                ejected: false,
                was_mounted: false,
            },
        );
    }

    /// Idempotent, like every removal.
    fn detach(&mut self, device: Device) {
        let Some(attached) = self.devices.get(&device) else {
            return;
        };
        let mounted = self.mounts.values().any(|(on, _)| *on == device);
        assert!(!mounted, "{device:?} is pulled out while it is mounted");
        let needs_eject = matches!(device, Device::Scsi(_)) && attached.was_mounted;
        assert!(
            !needs_eject || attached.ejected,
            "{device:?} is pulled out before the guest has let go"
        );
        self.devices.remove(&device);
        self.detaches += 1;
    }

    fn guest(&mut self, request: &GuestRequest) {
        match request {
            GuestRequest::MountScsi {
                address,
                guest_path,
                read_only,
            } => self.mount(Device::Scsi(*address), guest_path, *read_only),
            GuestRequest::MountVpmem { index, guest_path } => {
                self.mount(Device::Vpmem(*index), guest_path, true)
            }
            GuestRequest::MountShare {
                share,
                guest_path,
                read_only,
            } => self.mount(Device::Share(*share), guest_path, *read_only),
            GuestRequest::UnmountScsi { guest_path, .. }
            | GuestRequest::UnmountVpmem { guest_path, .. }
            | GuestRequest::UnmountShare { guest_path, .. } => {
                let in_use = self.overlays.values().any(|lower| lower.contains(guest_path));
                assert!(!in_use, "{guest_path} is unmounted below an overlay");
                let in_use = self.injected.values().any(|source| source == guest_path);
                assert!(!in_use, "{guest_path} is unmounted while a container has it");
                self.mounts.remove(guest_path);
            }
            GuestRequest::EjectScsi { address } => {
                let device = Device::Scsi(*address);
                let mounted = self.mounts.values().any(|(on, _)| *on == device);
                assert!(!mounted, "{device:?} is ejected while it is mounted");
                if let Some(attached) = self.devices.get_mut(&device) {
                    attached.ejected = true;
                }
            }
            GuestRequest::CombineLayers {
                root,
                layers,
                scratch,
            } => {
                let below: BTreeSet<_> = layers.iter().chain([scratch]).cloned().collect();
                for path in &below {
                    assert!(
                        self.mounts.contains_key(path),
                        "{path} is overlaid before it is mounted"
                    );
                }
                assert!(
                    self.overlays.insert(root.clone(), below).is_none(),
                    "{root} twice"
                );
            }
            GuestRequest::RemoveCombinedLayers { root } => {
                self.overlays.remove(root);
            }
            GuestRequest::AddContainerMount {
                container,
                source,
                destination,
                ..
            } => {
                assert!(
                    self.mounts.contains_key(source),
                    "{source} is brought into a container before it is mounted"
                );
                let place = (container.clone(), destination.clone());
                let before = self.injected.insert(place, source.clone());
                assert!(before.is_none(), "{destination} of {container} twice");
            }
            GuestRequest::RemoveContainerMount {
                container,
                destination,
                ..
            } => {
                self.injected.remove(&(container.clone(), destination.clone()));
            }
        }
    }

    fn mount(&mut self, device: Device, guest_path: &str, read_only: bool) {
        let attached = self
            .devices
            .get_mut(&device)
            .unwrap_or_else(|| panic!("{device:?} is not there"));
        assert!(!attached.ejected, "{device:?} is mounted after its eject");
        assert!(
            read_only || !attached.read_only,
            "{guest_path}: a writable mount of a read-only device"
        );
        attached.was_mounted = true;
        let before = self.mounts.insert(guest_path.to_owned(), (device, read_only));
        assert!(before.is_none(), "{guest_path} is mounted already");
    }

    /// Whether something is really mounted at a guest path.
    pub(crate) fn has(&self, guest_path: &str) -> bool {
        self.mounts.contains_key(guest_path) || self.overlays.contains_key(guest_path)
    }

    /// What is mounted on a destination of a container.
    pub(crate) fn in_container(&self, container: &str, destination: &str) -> Option<&str> {
        let place = (container.to_owned(), destination.to_owned());
        self.injected.get(&place).map(String::as_str)
    }

    /// Whether nothing is attached or mounted.
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_empty()
            && self.mounts.is_empty()
            && self.overlays.is_empty()
            && self.injected.is_empty()
    }
}

pub(crate) fn limits(vpmem_devices: u32) -> Limits {
    Limits {
        scsi_controllers: 1,
        vpmem_devices,
        vpmem_max_bytes: 1 << 20,
    }
}

pub(crate) fn path_of(file: u64) -> PathBuf {
    format!("/host/{file}").into()
}

pub(crate) fn key_of(file: u64) -> FileKey {
    FileKey {
        device: 1,
        inode: file,
    }
}

pub(crate) fn disk(file: u64, guest_path: &str, read_only: bool) -> DiskNeed {
    DiskNeed {
        path: path_of(file),
        key: key_of(file),
        kind: DiskKind::Virtual,
        guest_path: guest_path.to_owned(),
        read_only,
        auto_manage: false,
    }
}

pub(crate) fn layer(file: u64) -> Want {
    Want::Layer(LayerNeed {
        path: path_of(file),
        key: key_of(file),
        bytes: 4096,
    })
}

pub(crate) fn share(directory: u64, guest_path: &str, read_only: bool) -> Want {
    Want::Share(ShareNeed {
        path: path_of(directory),
        guest_path: guest_path.to_owned(),
        read_only,
        allowed_names: None,
    })
}

pub(crate) fn overlay(root: &str, layers: &[String], scratch: &str) -> Want {
    Want::Overlay(OverlayNeed {
        root: root.to_owned(),
        layers: layers.to_vec(),
        scratch: scratch.to_owned(),
    })
}

pub(crate) fn container_mount(container: &str, source: &str, destination: &str) -> Want {
    Want::ContainerMount(ContainerMountNeed {
        container: container.to_owned(),
        source: source.to_owned(),
        destination: destination.to_owned(),
        read_only: false,
    })
}

/// The step the ledger wants now.
pub(crate) fn step(ledger: &mut Ledger, lease: Lease) -> Step {
    match ledger.next(lease) {
        Next::Perform(step) => step,
        other => panic!("a step was expected, not {other:?}"),
    }
}

/// Performs the next step of a lease.
pub(crate) fn perform(ledger: &mut Ledger, vm: &mut Vm, lease: Lease, fault: Fault) -> Request {
    let step = step(ledger, lease);
    let result = vm.perform(&step.request, fault);
    ledger.outcome(&step.token, result).unwrap();
    step.request
}

/// Drives a lease as far as it goes without anybody else, as a driver would. Panics where it never comes to rest.
pub(crate) fn drive(ledger: &mut Ledger, vm: &mut Vm, lease: Lease) -> Next {
    for _ in 0..32 {
        match ledger.next(lease) {
            Next::Perform(step) => {
                let result = vm.perform(&step.request, Fault::None);
                ledger.outcome(&step.token, result).unwrap();
            }
            rest => return rest,
        }
    }
    panic!("the lease never comes to rest");
}
