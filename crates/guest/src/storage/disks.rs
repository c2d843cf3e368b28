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

use cofferdam_mounting::{MountError, filesystem::Filesystem, layer, mount_point, verity::Digest};
use cofferdam_protocol::settings::MappedVirtualDisk;
use rustix::mount::{MountFlags, mount_remount};

use super::{
    path::guest_path,
    scsi::{BlockDevice, System},
    verity,
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
    /// The device that checks its blocks, if there is one, by its name and what they hang on.
    checked: Option<(String, Digest)>,
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
        let pin = verity::pin(request.verity_info.as_ref())?;
        if request.mount_path.is_empty() && pin.is_some() {
            return Err(AgentError::NotSupported(
                "a disk that is not mounted has no hash tree to be checked against".into(),
            ));
        }
        let device = self
            .system
            .wait_for_disk(request.controller, request.lun, request.partition)?;
        if request.mount_path.is_empty() {
            return Ok(());
        }
        let target = guest_path(&request.mount_path)?;
        if request.block_dev {
            if pin.is_some() {
                return Err(AgentError::NotSupported(
                    "a link to a disk's device is not checked against a hash tree".into(),
                ));
            }
            return link(&device.node, &target);
        }
        let disk = self.disk(key);
        let mut disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = disk.add(key, &device, &target, request, pin);
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
        let key = (request.controller, request.lun, request.partition);
        let disk = self.disk(key);
        let mut disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
        if Path::new(&request.mount_path) == internal_path(key) {
            // What was left of it is freed, however it came to be: nobody else can name this path.
            return disk.release_all(key);
        }
        let target = guest_path(&request.mount_path)?;
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
        pin: Option<Digest>,
    ) -> Result<()> {
        // A release may have failed half way: what stands then is not whole.
        self.release()?;
        mount_point::make_free(target)?;
        let internal = match &mut self.mounted {
            Some(internal) => {
                internal.check_pin(key, pin)?;
                if !request.read_only {
                    internal.make_writable()?;
                }
                internal
            }
            None => self.mounted.insert(Internal::mount(key, device, request, pin)?),
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
            internal.clear()?;
            self.mounted = None;
        }
        Ok(())
    }

    /// The same for what no record is of.
    fn release_all(&mut self, key: Key) -> Result<()> {
        if !self.users.is_empty() {
            return Err(AgentError::Busy {
                what: format!("mount {}", internal_path(key).display()),
                holder: format!("{} mounts of it are in use", self.users.len()),
            });
        }
        mount_point::clear(&internal_path(key))?;
        layer::close(&verity::disk_name(key))?;
        self.mounted = None;
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
        key @ (controller, lun, _): Key,
        device: &BlockDevice,
        request: &MappedVirtualDisk,
        pin: Option<Digest>,
    ) -> Result<Self> {
        let path = internal_path(key);
        let name = verity::disk_name(key);
        mount_point::make_free(&path)?;
        let mount = || {
            let source = verity::open(&device.node, &name, request.read_only, pin.as_ref())?;
            let found = source.filesystem();
            if !request.filesystem.is_empty() && request.filesystem != found.name {
                return Err(AgentError::Invalid(format!(
                    "SCSI disk {controller}:{lun} holds {}, not {}",
                    found.name, request.filesystem
                )));
            }
            let root = source.root();
            let plan = MountPlan::new(found, device.read_only, request.read_only, root.is_some());
            let flags = if plan.writable {
                MountFlags::empty()
            } else {
                MountFlags::RDONLY
            };
            source.mount(&path, flags, plan.options)?;
            Ok((plan, root))
        };
        match mount() {
            Ok((plan, root)) => Ok(Self {
                path,
                checked: root.map(|root| (name, root)),
                writable: plan.writable,
                frozen: plan.frozen,
            }),
            Err(error) => {
                // The error that led here counts.
                let _ = mount_point::clear(&path);
                let _ = layer::close(&name);
                Err(error)
            }
        }
    }

    /// Unmounts it, and takes away what checks its blocks. It can be repeated.
    fn clear(&self) -> Result<()> {
        mount_point::clear(&self.path)?;
        if let Some((name, _)) = &self.checked {
            layer::close(name)?;
        }
        Ok(())
    }

    /// One who joins may hold the disk to another root digest than the first.
    fn check_pin(&self, (controller, lun, _): Key, pin: Option<Digest>) -> Result<()> {
        let root = self.checked.as_ref().map(|(_, root)| *root);
        match pin {
            Some(pin) if root != Some(pin) => Err(MountError::Verity {
                device: format!("SCSI disk {controller}:{lun}"),
                problem: match root {
                    Some(root) => format!("its root digest must be {pin}, and is {root}"),
                    None => format!("its root digest must be {pin}, and it has no hash tree"),
                },
            }
            .into()),
            _ => Ok(()),
        }
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
    fn new(found: Filesystem, device_read_only: bool, read_only: bool, checked: bool) -> Self {
        let frozen = if checked {
            Some("its blocks are checked against a hash tree")
        } else {
            device_read_only.then_some("the device refuses writes")
        };
        let options = if frozen.is_some() {
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

/// Where a disk is mounted itself.
fn internal_path((controller, lun, partition): Key) -> PathBuf {
    let suffix = match partition {
        0 => String::new(),
        number => format!("-p{number}"),
    };
    internal(&format!("{controller}-{lun}{suffix}"))
}

/// The same by its short name.
pub(crate) fn internal(name: &str) -> PathBuf {
    Path::new(INTERNAL).join(name)
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

    #[test]
    fn a_device_that_refuses_writes_is_mounted_without_its_journal_and_stays_read_only() {
        let plan = MountPlan::new(EXT4, true, true, false);
        assert_eq!((plan.writable, plan.options), (false, "noload"));
        assert_eq!(plan.frozen, Some("the device refuses writes"));
        let erofs = Filesystem {
            name: "erofs",
            ..EXT4
        };
        assert_eq!(MountPlan::new(erofs, true, true, false).options, "");
    }

    #[test]
    fn a_disk_that_is_checked_is_mounted_without_its_journal_and_stays_read_only() {
        let plan = MountPlan::new(EXT4, false, true, true);
        assert_eq!((plan.writable, plan.options), (false, "noload"));
        assert!(plan.frozen.is_some_and(|why| why.contains("hash tree")));
    }

    #[test]
    fn a_writer_can_join_a_reader_where_the_host_allows_writes() {
        assert_eq!(
            MountPlan::new(EXT4, false, true, false),
            MountPlan {
                writable: false,
                options: "",
                frozen: None
            }
        );
        assert!(MountPlan::new(EXT4, false, false, false).writable);
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
