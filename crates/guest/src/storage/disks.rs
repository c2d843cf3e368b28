//! SCSI disks mounted for containers.
//!
//! The kernel has one superblock for a disk, and it is read-only or writable as a whole. So each disk is mounted
//! once, internally, and bound to each guest path under that path's own rights: one disk can serve several
//! containers, read-only and read-write side by side.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use cofferdam_mounting::{filesystem::Filesystem, layer, mount_point};
use cofferdam_protocol::settings::MappedVirtualDisk;
use rustix::mount::{MountFlags, mount_remount};

use super::{
    path::guest_path,
    pin::root_digest,
    scsi::{BlockDevice, System},
};
use crate::error::{AgentError, During, Result};

/// Where internal mounts live.
const INTERNAL: &str = "/run/cofferdam/disks";

/// Controller, LUN, partition (0: the whole disk).
type Key = (u8, u8, u64);

/// All disks in use.
#[derive(Debug, Default)]
pub(crate) struct Disks {
    system: System,
    /// The outer lock is held only to look up; waiting and mounting happen under the disk's own.
    disks: Mutex<HashMap<Key, Arc<Mutex<Disk>>>>,
}

/// One disk's internal mount and who uses it.
#[derive(Debug, Default)]
struct Disk {
    /// Set while the internal mount stands.
    mounted: Option<Internal>,
    /// Guest path, and whether it is read-only.
    users: BTreeMap<PathBuf, bool>,
}

#[derive(Debug)]
struct Internal {
    path: PathBuf,
    /// The name of the device that checks the disk's blocks, if the disk has a hash tree.
    verity: String,
    writable: bool,
    /// Why it can never become writable.
    frozen: Option<&'static str>,
}

impl Disks {
    /// Mounts a disk on its guest path. An empty path only waits for the disk.
    pub(crate) fn add(&self, request: &MappedVirtualDisk) -> Result<()> {
        let key = (request.controller, request.lun, request.partition);
        for (asked, what) in [
            (request.encrypted, "an encrypted disk"),
            (request.ensure_filesystem, "formatting a disk"),
        ] {
            if asked {
                return Err(AgentError::NotSupported(format!("{what} is not supported")));
            }
        }
        let device = self
            .system
            .wait_for_disk(request.controller, request.lun, request.partition)?;
        if request.mount_path.is_empty() {
            return Ok(());
        }
        let target = guest_path(&request.mount_path)?;
        if request.block_dev {
            return link(&device.node, &target);
        }
        let disk = self.disk(key);
        let mut disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = disk.add(key, &device, &target, request);
        if outcome.is_err() {
            disk.release_if_unused();
        }
        outcome
    }

    /// Unmounts a guest path, and the disk with its last user. What is absent counts as done.
    pub(crate) fn remove(&self, request: &MappedVirtualDisk) -> Result<()> {
        if request.mount_path.is_empty() {
            return Ok(());
        }
        let target = guest_path(&request.mount_path)?;
        let disk = self.disk((request.controller, request.lun, request.partition));
        let mut disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
        mount_point::clear(&target)?;
        disk.users.remove(&target);
        disk.release()
    }

    /// Tells the kernel to let go of a disk, so that the host may pull it out.
    pub(crate) fn eject(&self, controller: u8, lun: u8) -> Result<()> {
        self.system.eject(controller, lun)
    }

    fn disk(&self, key: Key) -> Arc<Mutex<Disk>> {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        // Disks nobody mounts or waits for are forgotten here, so that the map stays as small as the VM.
        disks.retain(|_, disk| {
            Arc::strong_count(disk) > 1 || disk.try_lock().map_or(true, |disk| disk.in_use())
        });
        disks.entry(key).or_default().clone()
    }
}

impl Disk {
    fn in_use(&self) -> bool {
        self.mounted.is_some() || !self.users.is_empty()
    }

    fn add(
        &mut self,
        key: Key,
        device: &BlockDevice,
        target: &Path,
        request: &MappedVirtualDisk,
    ) -> Result<()> {
        mount_point::make_free(target)?;
        let internal = match &mut self.mounted {
            Some(internal) => {
                if !request.read_only {
                    internal.make_writable()?;
                }
                internal
            }
            None => self.mounted.insert(Internal::mount(key, device, request)?),
        };
        let bound = mount_point::bind(&internal.path, target, request.read_only);
        let done = bound.and_then(|()| {
            mount_point::propagate(target, &request.options).inspect_err(|_| {
                let _ = mount_point::clear(target);
            })
        });
        if let Err(error) = done {
            let _ = mount_point::clear(target);
            return Err(error.into());
        }
        self.users.insert(target.to_owned(), request.read_only);
        Ok(())
    }

    /// Unmounts the disk itself once nobody uses it.
    fn release(&mut self) -> Result<()> {
        if self.users.is_empty()
            && let Some(internal) = &self.mounted
        {
            mount_point::clear(&internal.path)?;
            layer::close(&internal.verity)?;
            self.mounted = None;
        }
        Ok(())
    }

    fn release_if_unused(&mut self) {
        if let Err(error) = self.release() {
            tracing::warn!(%error, "the disk stays mounted after a failed step");
        }
    }
}

impl Internal {
    fn mount(
        (controller, lun, partition): Key,
        device: &BlockDevice,
        request: &MappedVirtualDisk,
    ) -> Result<Self> {
        let suffix = if partition == 0 {
            String::new()
        } else {
            format!("-p{partition}")
        };
        let path = Path::new(INTERNAL).join(format!("{controller}-{lun}{suffix}"));
        let verity = format!("scsi-{controller}-{lun}{suffix}");
        let pin = root_digest(request.verity_info.as_ref())?;
        let source = layer::Source::open(&device.node, &verity, request.read_only, pin.as_ref())?;
        let mounted = Self::mount_source(&source, &path, (controller, lun), device, request);
        if mounted.is_err() {
            let _ = mount_point::clear(&path);
            if let Err(error) = layer::close(&verity) {
                tracing::warn!(%error, "a dm-verity device stays after a failed mount");
            }
        }
        let plan = mounted?;
        Ok(Self {
            path,
            verity,
            writable: plan.writable,
            frozen: plan.frozen,
        })
    }

    fn mount_source(
        source: &layer::Source,
        path: &Path,
        (controller, lun): (u8, u8),
        device: &BlockDevice,
        request: &MappedVirtualDisk,
    ) -> Result<MountPlan> {
        let found = source.filesystem();
        if !request.filesystem.is_empty() && request.filesystem != found.name {
            return Err(AgentError::Invalid(format!(
                "SCSI disk {controller}:{lun} holds {}, not {}",
                found.name, request.filesystem
            )));
        }
        mount_point::make_free(path)?;
        // Whatever checks blocks refuses to change them.
        let plan = MountPlan::new(found, device.read_only || source.is_checked(), request.read_only);
        let flags = if plan.writable {
            MountFlags::empty()
        } else {
            MountFlags::RDONLY
        };
        source.mount(path, flags, plan.options)?;
        Ok(plan)
    }

    fn make_writable(&mut self) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        if let Some(reason) = self.frozen {
            return Err(AgentError::Busy {
                what: format!("a writable mount of {}", self.path.display()),
                holder: format!("it is mounted read-only and {reason}"),
            });
        }
        mount_remount(&self.path, MountFlags::empty(), "")
            .during(|| format!("making {} writable", self.path.display()))?;
        self.writable = true;
        Ok(())
    }
}

/// How a disk is first mounted.
#[derive(Debug, PartialEq, Eq)]
struct MountPlan {
    writable: bool,
    options: &'static str,
    frozen: Option<&'static str>,
}

impl MountPlan {
    /// A read-only mount of a device that refuses writes leaves the journal alone. Mounted that way, ext4 has no
    /// journal loaded and cannot become writable later. Where the host lets the VM write, another container may
    /// want to: the journal is loaded, and replayed if need be, and only the mount is read-only.
    fn new(found: Filesystem, device_read_only: bool, read_only: bool) -> Self {
        let frozen = device_read_only.then_some("the device refuses writes");
        let options = if device_read_only {
            found.no_recovery_option()
        } else {
            ""
        };
        Self {
            writable: !read_only,
            options: if read_only { options } else { "" },
            frozen,
        }
    }
}

/// A link to the device instead of a mount.
fn link(node: &Path, target: &Path) -> Result<()> {
    if let Some(parent) = target.parent() {
        mount_point::make(parent)?;
    }
    std::os::unix::fs::symlink(node, target)
        .during(|| format!("linking {} to {}", target.display(), node.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXT4: Filesystem = Filesystem {
        name: "ext4",
        size_bytes: None,
    };
    const EROFS: Filesystem = Filesystem {
        name: "erofs",
        size_bytes: None,
    };

    #[test]
    fn a_device_that_refuses_writes_is_mounted_without_its_journal_and_stays_read_only() {
        let plan = MountPlan::new(EXT4, true, true);
        assert_eq!((plan.writable, plan.options), (false, "noload"));
        assert!(plan.frozen.is_some());
        assert_eq!(MountPlan::new(EROFS, true, true).options, "");
    }

    #[test]
    fn a_writer_can_join_a_reader_where_the_host_allows_writes() {
        assert_eq!(
            MountPlan::new(EXT4, false, true),
            MountPlan {
                writable: false,
                options: "",
                frozen: None
            }
        );
        assert!(MountPlan::new(EXT4, false, false).writable);
    }

    #[test]
    fn removing_a_mount_that_is_not_there_succeeds_and_is_forgotten() {
        let disks = Disks::default();
        let request = MappedVirtualDisk {
            mount_path: "/tmp/cofferdam-no-such-mount".into(),
            ..Default::default()
        };
        disks.remove(&request).unwrap();
        disks.remove(&request).unwrap();
        disks.disk((1, 1, 0));
        assert!(!disks.disks.lock().unwrap().contains_key(&(0, 0, 0)));
    }

    #[test]
    fn features_not_served_are_refused_by_name() {
        let request = MappedVirtualDisk {
            encrypted: true,
            mount_path: "/x".into(),
            ..Default::default()
        };
        let error = Disks::default().add(&request).unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            (0x8000_4001, "an encrypted disk is not supported")
        );
    }
}
