//! The fake VM's devices, and what a hypervisor would refuse.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use cofferdam_ledger::{
    address::{LUNS_PER_CONTROLLER, Limits, ScsiAddress},
    request::{HostRequest, ShareId},
};
use cofferdam_protocol::HResult;

use super::guest::{GuestMounts, MountSource};
use crate::Devices;

/// A refusal of the fake VM.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) message: String,
    /// The guest's code.
    pub(super) result: HResult,
    /// The caller broke a rule that it must keep, fault or no fault.
    pub(super) violation: bool,
}

impl Refusal {
    /// The step cannot be done.
    pub(super) fn plain(message: impl Into<String>) -> Self {
        Self::with(HResult::FAIL, message)
    }

    /// The step cannot be done, for a reason that has its own code.
    pub(super) fn with(result: HResult, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            result,
            violation: false,
        }
    }

    /// The step should never have been asked for.
    pub(super) fn violation(message: impl Into<String>) -> Self {
        Self {
            violation: true,
            ..Self::plain(message)
        }
    }
}

/// A disk that is plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    pub(super) read_only: bool,
    /// The guest still sees it: it has not been ejected.
    pub(super) visible: bool,
    /// The guest has mounted it since it was plugged in, and not ejected it.
    pub(super) touched: bool,
}

/// Everything that is plugged in.
#[derive(Debug, Default)]
pub(super) struct HostDevices {
    pub(super) disks: BTreeMap<ScsiAddress, Disk>,
    pub(super) vpmem: BTreeMap<u32, PathBuf>,
    pub(super) shares: BTreeMap<ShareId, bool>,
    used_shares: BTreeSet<ShareId>,
    pub(super) attach_count: u64,
    pub(super) detach_count: u64,
}

impl HostDevices {
    pub(super) fn devices(&self) -> Devices {
        Devices {
            scsi: self.disks.keys().copied().collect(),
            vpmem: self.vpmem.keys().copied().collect(),
            shares: self.shares.keys().copied().collect(),
            leftovers: BTreeSet::new(),
        }
    }

    /// The VM is gone, and everything in it.
    pub(super) fn clear(&mut self) {
        self.disks.clear();
        self.vpmem.clear();
        self.shares.clear();
    }

    /// Performs one step, whole or not at all.
    pub(super) fn perform(
        &mut self,
        request: &HostRequest,
        limits: &Limits,
        mounts: &GuestMounts,
        require_paths: bool,
    ) -> Result<(), Refusal> {
        let exists = |path: &Path| match path.symlink_metadata() {
            Err(error) if require_paths => Err(Refusal::plain(format!("{}: {error}", path.display()))),
            _ => Ok(()),
        };
        match request {
            HostRequest::AttachScsi {
                address,
                path,
                read_only,
                ..
            } => {
                self.check_address(*address, limits)?;
                exists(path)?;
                self.check_lock(path, *read_only)?;
                let disk = Disk {
                    path: path.clone(),
                    read_only: *read_only,
                    visible: true,
                    touched: false,
                };
                self.disks.insert(*address, disk);
                self.attach_count += 1;
            }
            HostRequest::DetachScsi { address } => {
                let Some(disk) = self.disks.get(address) else {
                    return Ok(());
                };
                if let Some(mount) = mounts.user_of(&MountSource::Scsi(*address)) {
                    let message = format!("{address} is pulled out while mounted on {mount}");
                    return Err(Refusal::violation(message));
                }
                if disk.touched {
                    return Err(Refusal::violation(format!(
                        "{address} is pulled out, but was not ejected"
                    )));
                }
                self.disks.remove(address);
                self.detach_count += 1;
            }
            HostRequest::AttachVpmem { index, path } => {
                if *index >= limits.vpmem_devices {
                    return Err(Refusal::violation(format!(
                        "there is no persistent-memory device {index}"
                    )));
                }
                if self.vpmem.contains_key(index) {
                    return Err(Refusal::violation(format!(
                        "persistent-memory device {index} is occupied"
                    )));
                }
                exists(path)?;
                self.check_lock(path, true)?;
                if let Ok(metadata) = path.metadata()
                    && metadata.len() > limits.vpmem_max_bytes
                {
                    let message = format!("{} does not fit persistent memory", path.display());
                    return Err(Refusal::violation(message));
                }
                self.vpmem.insert(*index, path.clone());
                self.attach_count += 1;
            }
            HostRequest::DetachVpmem { index } => {
                if let Some(mount) = mounts.user_of(&MountSource::Vpmem(*index)) {
                    let message =
                        format!("persistent-memory device {index} is pulled out while mounted on {mount}");
                    return Err(Refusal::violation(message));
                }
                if self.vpmem.remove(index).is_some() {
                    self.detach_count += 1;
                }
            }
            HostRequest::AddShare {
                share,
                path,
                read_only,
                ..
            } => {
                if self.used_shares.contains(share) {
                    return Err(Refusal::violation(format!("share {share} has been used before")));
                }
                exists(path)?;
                self.used_shares.insert(*share);
                self.shares.insert(*share, *read_only);
                self.attach_count += 1;
            }
            HostRequest::RemoveShare { share } => {
                if let Some(mount) = mounts.user_of(&MountSource::Share(*share)) {
                    let message = format!("share {share} is withdrawn while mounted on {mount}");
                    return Err(Refusal::violation(message));
                }
                if self.shares.remove(share).is_some() {
                    self.detach_count += 1;
                }
            }
            HostRequest::DeleteFile { path } => {
                let users = self
                    .disks
                    .values()
                    .map(|disk| &disk.path)
                    .chain(self.vpmem.values());
                if users.into_iter().any(|used| used == path) {
                    let message = format!("{} is deleted while it is plugged in", path.display());
                    return Err(Refusal::violation(message));
                }
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(Refusal::plain(format!("{}: {error}", path.display())));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn check_address(&self, address: ScsiAddress, limits: &Limits) -> Result<(), Refusal> {
        if address.controller >= limits.scsi_controllers || address.lun >= LUNS_PER_CONTROLLER {
            return Err(Refusal::violation(format!("there is no {address}")));
        }
        if self.disks.contains_key(&address) {
            return Err(Refusal::violation(format!("{address} is occupied")));
        }
        Ok(())
    }

    /// An image that somebody writes to has one user, as image locks have it.
    fn check_lock(&self, path: &Path, read_only: bool) -> Result<(), Refusal> {
        let disks = self.disks.values().map(|disk| (&disk.path, disk.read_only));
        let mut users = disks.chain(self.vpmem.values().map(|path| (path, true)));
        match users.find(|(used, used_read_only)| *used == path && !(*used_read_only && read_only)) {
            Some(_) => Err(Refusal::plain(format!(
                "{} is locked by another device",
                path.display()
            ))),
            None => Ok(()),
        }
    }
}
