//! Disks of one owner, attached to this host.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cofferdam_image::{ImageFacts, ImageFormat, probe};
use cofferdam_ledger::{address::ScsiAddress, request::DiskKind};
use cofferdam_mounting::{layer, mapper};
use rustix::fs::{major, minor};

use crate::{
    Owner,
    error::{During, HostError, Result},
    export::{self, Export},
    loops::{self, LoopDevice, Shape},
};

/// What is attached where. The maps are no record of what the host holds, which the system itself is asked about;
/// they keep open what must stay open.
#[derive(Debug)]
pub(crate) struct Disks {
    owner: Owner,
    /// The outer lock is held only to look up; attaching and detaching happen under the disk's own.
    disks: Mutex<BTreeMap<ScsiAddress, Arc<Mutex<Disk>>>>,
}

/// The disk at one address.
#[derive(Debug, Default)]
struct Disk {
    device: Option<Device>,
    /// What the loop device reads, where the kernel cannot read the image.
    export: Option<Export>,
}

#[derive(Debug)]
enum Device {
    Loop {
        device: LoopDevice,
        read_only: bool,
    },
    /// A block device of the host, as it is.
    Block(PathBuf),
}

/// Where a disk can be mounted from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) path: PathBuf,
    /// Whether the device itself refuses writes.
    pub(crate) read_only: bool,
    /// What the device is called that checks its blocks, if it has a hash tree.
    pub(crate) checked: String,
}

impl Disks {
    pub(crate) fn new(owner: Owner) -> Self {
        Self {
            owner,
            disks: Mutex::default(),
        }
    }

    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Makes an image or device a block device at an address. What a failure had done is undone.
    pub(crate) fn attach(
        &self,
        address: ScsiAddress,
        path: &Path,
        kind: DiskKind,
        read_only: bool,
    ) -> Result<()> {
        let disk = self.disk(address);
        let mut disk = lock(&disk);
        if disk.device.is_some() || disk.export.is_some() {
            return Err(HostError::Busy {
                what: address.to_string(),
                holder: "a disk is attached there".to_owned(),
            });
        }
        let facts = probe(path).map_err(|error| HostError::Image {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
        let problem = match kind {
            DiskKind::Physical => facts.problem_as_device(),
            DiskKind::Virtual => facts.problem_as_image(),
        };
        if let Some(problem) = problem {
            return Err(HostError::Image {
                path: path.to_owned(),
                problem,
            });
        }
        disk.device = Some(match kind {
            DiskKind::Physical => Device::Block(path.to_owned()),
            DiskKind::Virtual => {
                let device = self.attach_image(&mut disk, address, path, &facts, read_only)?;
                Device::Loop { device, read_only }
            }
        });
        Ok(())
    }

    fn attach_image(
        &self,
        disk: &mut Disk,
        address: ScsiAddress,
        path: &Path,
        facts: &ImageFacts,
        read_only: bool,
    ) -> Result<LoopDevice> {
        let shape = |size_bytes| Shape {
            size_bytes,
            read_only,
        };
        match facts.format {
            ImageFormat::Raw | ImageFormat::BlockDevice => {
                loops::attach(&self.owner, address, path, shape(0))
            }
            // The footer is no part of the disk.
            ImageFormat::VhdFixed => {
                loops::attach(&self.owner, address, path, shape(facts.virtual_size_bytes))
            }
            ImageFormat::VhdDynamic | ImageFormat::Vhdx | ImageFormat::Qcow2 => {
                let (export, file) = export::start(&self.owner, address, path, facts.format, read_only)?;
                match loops::attach(&self.owner, address, &file, shape(0)) {
                    Ok(device) => {
                        disk.export = Some(export);
                        Ok(device)
                    }
                    Err(error) => {
                        if let Err(second) = export.stop(&self.owner, address) {
                            tracing::warn!(error = %second, "ending an export after a failed step");
                        }
                        Err(error)
                    }
                }
            }
        }
    }

    /// Takes the disk at an address away. What is absent counts as done; after an error it can be repeated.
    pub(crate) fn detach(&self, address: ScsiAddress) -> Result<()> {
        let disk = self.disk(address);
        let mut disk = lock(&disk);
        // What checks its blocks keeps it in use; a mount of that is in the way.
        layer::close(&self.owner.checked(address))?;
        // With this the device goes, unless somebody else uses it.
        disk.device = None;
        loops::detach(&self.owner, address)?;
        match disk.export.take() {
            Some(export) => export.stop(&self.owner, address),
            None => export::clear(&self.owner, address),
        }
    }

    /// The device at an address.
    pub(crate) fn node(&self, address: ScsiAddress) -> Result<Node> {
        match &lock(&self.disk(address)).device {
            Some(Device::Loop { device, read_only }) => Ok(Node {
                path: device.node.clone(),
                read_only: *read_only,
                checked: self.owner.checked(address),
            }),
            Some(Device::Block(path)) => Ok(Node {
                path: path.clone(),
                read_only: is_read_only(path)?,
                checked: self.owner.checked(address),
            }),
            None => Err(HostError::Io {
                action: format!("looking for {address}"),
                source: io::Error::new(io::ErrorKind::NotFound, "no disk is attached there"),
            }),
        }
    }

    /// Every address at which the host has a device of this owner, and what else there is.
    pub(crate) fn attached(&self) -> Result<(Vec<ScsiAddress>, Vec<String>)> {
        let devices: Vec<_> = loops::of_owner(&self.owner)?
            .into_iter()
            .map(|device| device.address)
            .collect();
        let mut leftovers = Vec::new();
        for address in export::addresses(&self.owner)? {
            if !devices.contains(&address) {
                leftovers.push(format!("export {}", self.owner.export(address).display()));
            }
        }
        // One that checks a block device of the host is on no device of ours.
        for mapped in mapper::starting_with(&self.owner.checked_prefix())? {
            if !self
                .known()
                .iter()
                .any(|known| self.owner.checked(*known) == mapped.name)
            {
                leftovers.push(format!("dm-verity device {}", mapped.name));
            }
        }
        Ok((devices, leftovers))
    }

    fn disk(&self, address: ScsiAddress) -> Arc<Mutex<Disk>> {
        let mut disks = lock(&self.disks);
        disks.entry(address).or_default().clone()
    }

    /// Every address there has been a disk at.
    pub(crate) fn known(&self) -> Vec<ScsiAddress> {
        lock(&self.disks).keys().copied().collect()
    }
}

/// Nothing is left half changed by a panic: what a map holds is only what is to be kept open.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A block device's number, as the mount table has it.
pub(crate) fn device_number(device: &Path) -> Result<String> {
    let found = fs::metadata(device).during(|| format!("looking at {}", device.display()))?;
    let number = found.rdev();
    Ok(format!("{}:{}", major(number), minor(number)))
}

fn is_read_only(device: &Path) -> Result<bool> {
    let number = device_number(device)?;
    let attribute = format!("/sys/dev/block/{number}/ro");
    // A partition has no attribute of its own on old kernels; writes to it fail all the same.
    match fs::read_to_string(&attribute) {
        Ok(text) => Ok(text.trim() == "1"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).during(|| format!("reading {attribute}")),
    }
}
