//! The fake guest's mount table, and what a kernel would refuse.

use std::{collections::BTreeMap, fmt};

use cofferdam_ledger::{address::ScsiAddress, request::ShareId};
use cofferdam_protocol::{
    message, ports,
    settings::{CombinedLayers, ModificationRequest, RequestType, Resource},
};

use super::host::{HostDevices, Refusal};

/// What is mounted somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A SCSI disk.
    Scsi(ScsiAddress),
    /// A persistent-memory device.
    Vpmem(u32),
    /// A Plan 9 share.
    Share(ShareId),
    /// An overlay.
    Overlay {
        /// Lower directories, topmost first.
        layers: Vec<String>,
        /// The scratch; empty for a read-only overlay.
        scratch: String,
    },
}

impl fmt::Display for MountSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scsi(address) => address.fmt(f),
            Self::Vpmem(index) => write!(f, "persistent memory {index}"),
            Self::Share(share) => write!(f, "share {share}"),
            Self::Overlay { .. } => f.write_str("an overlay"),
        }
    }
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestMount {
    /// What is mounted.
    pub source: MountSource,
    /// Without the right to write.
    pub read_only: bool,
}

/// Every mount of the guest by its path.
#[derive(Debug, Default)]
pub(super) struct GuestMounts(pub(super) BTreeMap<String, GuestMount>);

/// Whether `path` is `parent` or below it.
pub(super) fn is_within(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl GuestMounts {
    /// A path where `source` is mounted.
    pub(super) fn user_of(&self, source: &MountSource) -> Option<&str> {
        self.0
            .iter()
            .find(|(_, mount)| mount.source == *source)
            .map(|(path, _)| path.as_str())
    }

    /// Whether `path` is a mount, or below one.
    pub(super) fn covers(&self, path: &str) -> bool {
        self.0.keys().any(|mount| is_within(path, mount))
    }

    /// The table as the guest tells it.
    pub(super) fn listed(&self) -> Vec<message::GuestMount> {
        let one = |(path, mount): (&String, &GuestMount)| message::GuestMount {
            path: path.clone(),
            source: mount.source.to_string(),
            fs_type: match mount.source {
                MountSource::Scsi(_) | MountSource::Vpmem(_) => "ext4",
                MountSource::Share(_) => "9p",
                MountSource::Overlay { .. } => "overlay",
            }
            .to_owned(),
            read_only: mount.read_only,
        };
        self.0.iter().map(one).collect()
    }

    /// Performs one modification, whole or not at all. `running` has the root directories of running containers.
    pub(super) fn apply(
        &mut self,
        request: &ModificationRequest,
        devices: &mut HostDevices,
        running: &[String],
    ) -> Result<(), Refusal> {
        match (&request.resource, request.request_type) {
            (Resource::MappedVirtualDisk(disk), RequestType::Add) => {
                let address = ScsiAddress {
                    controller: disk.controller,
                    lun: disk.lun,
                };
                let Some(device) = devices.disks.get_mut(&address).filter(|device| device.visible) else {
                    return Err(Refusal::plain(format!("there is no {address} in the guest")));
                };
                if device.read_only && !disk.read_only {
                    return Err(Refusal::plain(format!("{address} is write-protected")));
                }
                if !disk.mount_path.is_empty() {
                    self.mount(&disk.mount_path, MountSource::Scsi(address), disk.read_only)?;
                    device.touched = true;
                }
                Ok(())
            }
            (Resource::MappedVirtualDisk(disk), RequestType::Remove) => {
                let address = ScsiAddress {
                    controller: disk.controller,
                    lun: disk.lun,
                };
                self.unmount(
                    &disk.mount_path,
                    |source| *source == MountSource::Scsi(address),
                    running,
                )
            }
            (Resource::ScsiDevice(disk), RequestType::Remove) => {
                let address = ScsiAddress {
                    controller: disk.controller,
                    lun: disk.lun,
                };
                if let Some(path) = self.user_of(&MountSource::Scsi(address)) {
                    return Err(Refusal::violation(format!(
                        "{address} is ejected while mounted on {path}"
                    )));
                }
                if let Some(device) = devices.disks.get_mut(&address) {
                    (device.visible, device.touched) = (false, false);
                }
                Ok(())
            }
            (Resource::VpmemDevice(device), RequestType::Add) => {
                let index = device.device_number;
                if !devices.vpmem.contains_key(&index) {
                    return Err(Refusal::plain(format!(
                        "there is no persistent memory {index} in the guest"
                    )));
                }
                self.mount(&device.mount_path, MountSource::Vpmem(index), true)
            }
            (Resource::VpmemDevice(device), RequestType::Remove) => {
                let index = device.device_number;
                self.unmount(
                    &device.mount_path,
                    |source| *source == MountSource::Vpmem(index),
                    running,
                )
            }
            (Resource::MappedDirectory(share), RequestType::Add) => {
                let id = share_id(&share.share_name)?;
                if share.port != ports::PLAN9 {
                    return Err(Refusal::plain(format!("port {} does not answer", share.port)));
                }
                if !devices.shares.contains_key(&id) {
                    return Err(Refusal::plain(format!("there is no share {id}")));
                }
                self.mount(&share.mount_path, MountSource::Share(id), share.read_only)
            }
            (Resource::MappedDirectory(share), RequestType::Remove) => {
                let id = share_id(&share.share_name)?;
                self.unmount(
                    &share.mount_path,
                    |source| *source == MountSource::Share(id),
                    running,
                )
            }
            (Resource::CombinedLayers(layers), RequestType::Add) => self.combine(layers),
            (Resource::CombinedLayers(layers), RequestType::Remove) => {
                let overlay = |source: &MountSource| matches!(source, MountSource::Overlay { .. });
                self.unmount(&layers.container_root_path, overlay, running)
            }
            (other, kind) => Err(Refusal::plain(format!(
                "{kind:?} of a {} is not supported",
                other.name()
            ))),
        }
    }

    fn mount(&mut self, path: &str, source: MountSource, read_only: bool) -> Result<(), Refusal> {
        let clean = path.len() > 1
            && path
                .split('/')
                .skip(1)
                .all(|part| !matches!(part, "" | "." | ".."));
        if !(path.starts_with('/') && clean) {
            return Err(Refusal::violation(format!("{path:?} is no guest path")));
        }
        if let Some(occupant) = self.0.get(path) {
            let message = format!("{path} is occupied by {}, wanted for {source}", occupant.source);
            return Err(Refusal::violation(message));
        }
        self.0.insert(path.to_owned(), GuestMount { source, read_only });
        Ok(())
    }

    fn combine(&mut self, layers: &CombinedLayers) -> Result<(), Refusal> {
        let (root, scratch) = (&layers.container_root_path, &layers.scratch_path);
        let paths: Vec<String> = layers.layers.iter().map(|layer| layer.path.clone()).collect();
        if paths.is_empty() {
            return Err(Refusal::violation(format!("the overlay on {root} has no layers")));
        }
        if let Some(missing) = paths.iter().find(|path| !self.covers(path)) {
            return Err(Refusal::violation(format!(
                "the overlay on {root} has no layer {missing}"
            )));
        }
        if !scratch.is_empty() {
            match self.0.get(scratch) {
                Some(mount) if mount.read_only => {
                    return Err(Refusal::violation(format!("the scratch {scratch} is read-only")));
                }
                None if !self.covers(scratch) => {
                    return Err(Refusal::violation(format!(
                        "the overlay on {root} has no scratch {scratch}"
                    )));
                }
                _ => {}
            }
            let users = self.0.values().filter(|mount| match &mount.source {
                MountSource::Overlay { scratch: used, .. } => used == scratch,
                _ => false,
            });
            if users.count() > 0 {
                return Err(Refusal::violation(format!(
                    "the scratch {scratch} has an overlay already"
                )));
            }
        }
        let source = MountSource::Overlay {
            layers: paths,
            scratch: scratch.clone(),
        };
        self.mount(root, source, scratch.is_empty())
    }

    /// Unmounts `path`, if anything is mounted there: what `expected` says.
    fn unmount(
        &mut self,
        path: &str,
        expected: impl Fn(&MountSource) -> bool,
        running: &[String],
    ) -> Result<(), Refusal> {
        let Some(mount) = self.0.get(path) else {
            return Ok(());
        };
        if !expected(&mount.source) {
            return Err(Refusal::violation(format!(
                "{path} holds {}, not what is to be unmounted",
                mount.source
            )));
        }
        if let Some(above) = self
            .0
            .keys()
            .find(|other| *other != path && is_within(other, path))
        {
            return Err(Refusal::violation(format!(
                "{path} is unmounted below the mount {above}"
            )));
        }
        let overlay = self.0.iter().find(|(_, mount)| match &mount.source {
            MountSource::Overlay { layers, scratch } => {
                layers.iter().chain([scratch]).any(|used| is_within(used, path))
            }
            _ => false,
        });
        if let Some((overlay, _)) = overlay {
            return Err(Refusal::violation(format!(
                "{path} is unmounted below the overlay on {overlay}"
            )));
        }
        if let Some(root) = running.iter().find(|root| is_within(root, path)) {
            return Err(Refusal::violation(format!(
                "{path} is unmounted below the running container on {root}"
            )));
        }
        self.0.remove(path);
        Ok(())
    }
}

fn share_id(name: &str) -> Result<ShareId, Refusal> {
    let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    match name.parse() {
        Ok(number) if digits => Ok(ShareId(number)),
        _ => Err(Refusal::violation(format!("{name:?} is no share name"))),
    }
}
