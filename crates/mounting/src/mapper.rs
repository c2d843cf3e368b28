//! Devices of the device mapper whose every block is checked when it is read.
//!
//! The system itself is asked what there is, by name: nothing is remembered. A name belongs to one device below it; who
//! makes devices chooses names that nobody else chooses.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{major, minor};

use crate::{
    dm_ioctl::{Call, READ_ONLY, STATUS_TABLE, Target, call},
    error::{During, MountError, Result},
    mountinfo,
    verity::{BLOCK_BYTES, Tree},
};

const CONTROL: &str = "/dev/mapper/control";
const SECTOR: u64 = 512;
/// How long somebody who only looks at new devices may keep one open, and how long a node may take to appear.
const LIMIT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// A device of the device mapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: PathBuf,
    /// `major:minor`, as the mount table has it.
    pub number: String,
}

/// Has the kernel check `device` against `tree`, as a device of its own called `name`. One that is there already with
/// the same table is taken as it is.
///
/// # Errors
/// [`MountError::Verity`] where the kernel cannot, [`MountError::Busy`] where the name is taken by another; the system's.
/// Nothing is left after an error.
pub fn open(name: &str, device: &Path, tree: &Tree) -> Result<Mapped> {
    let refused = |problem: String| MountError::Verity {
        device: device.display().to_string(),
        problem,
    };
    let Some(control) = control()? else {
        return Err(refused(format!(
            "the kernel has no device mapper ({CONTROL} is not there), so its blocks cannot be checked"
        )));
    };
    let found = fs::metadata(device).during(|| format!("looking at {}", device.display()))?;
    let number = found.rdev();
    let target = Target {
        sectors: tree.data_blocks * (BLOCK_BYTES / SECTOR),
        kind: "verity".to_owned(),
        parameters: tree.table(&format!("{}:{}", major(number), minor(number))),
    };
    let action = |what: &str| format!("{what} dm-verity device {name} of {}", device.display());
    match call(&control, Call::Create, name, READ_ONLY, None) {
        Ok(_) => {}
        Err(error) if is(&error, rustix::io::Errno::BUSY) => return same(&control, name, &target),
        Err(error) => return Err(error).during(|| action("making")),
    }
    let load = || {
        if let Err(error) = call(&control, Call::TableLoad, name, READ_ONLY, Some(&target)) {
            return Err(if is(&error, rustix::io::Errno::INVAL) {
                refused(format!(
                    "the kernel took no verity target ({error}): it may have no dm-verity"
                ))
            } else {
                MountError::Io {
                    action: action("loading the table of"),
                    source: error,
                }
            });
        }
        let answer = call(&control, Call::Suspend, name, 0, None).during(|| action("starting"))?;
        node(name, answer.device)
    };
    load().inspect_err(|_| {
        // The error that led here counts.
        let _ = remove(name);
    })
}

/// The device called `name`, which must have this table.
fn same(control: &File, name: &str, target: &Target) -> Result<Mapped> {
    let action = || format!("looking at device-mapper device {name}");
    let table = call(control, Call::TableStatus, name, STATUS_TABLE, None).during(action)?;
    if table.target.as_ref() != Some(target) {
        return Err(MountError::Busy {
            what: format!("device-mapper name {name}"),
            holder: "a device with another table has it".to_owned(),
        });
    }
    node(name, table.device)
}

/// Whether the kernel has found blocks of `name` that are not what the tree says.
///
/// # Errors
/// The system's.
pub fn is_corrupt(name: &str) -> Result<bool> {
    let Some(control) = control()? else {
        return Ok(false);
    };
    match call(&control, Call::TableStatus, name, 0, None) {
        Ok(status) => Ok(status
            .target
            .is_some_and(|target| target.parameters.starts_with('C'))),
        Err(error) if is(&error, rustix::io::Errno::NXIO) => Ok(false),
        Err(error) => Err(error).during(|| format!("looking at device-mapper device {name}")),
    }
}

/// Takes the device called `name` away. What is absent counts as done, so it can be repeated.
///
/// # Errors
/// [`MountError::Busy`] with what holds it; the system's.
pub fn remove(name: &str) -> Result<()> {
    let Some(control) = control()? else { return Ok(()) };
    let start = Instant::now();
    loop {
        match call(&control, Call::Remove, name, 0, None) {
            Ok(_) => return Ok(()),
            Err(error) if is(&error, rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) if is(&error, rustix::io::Errno::BUSY) => {
                let mount = mounted(name)?;
                if mount.is_none() && start.elapsed() < LIMIT {
                    // Whoever looks at new devices lets go by himself.
                    thread::sleep(POLL);
                    continue;
                }
                return Err(MountError::Busy {
                    what: format!("dm-verity device {name}"),
                    holder: match mount {
                        Some(path) => format!("it is mounted on {}", path.display()),
                        None => {
                            "a process has it open, or it is mounted in another mount namespace".to_owned()
                        }
                    },
                });
            }
            Err(error) => return Err(error).during(|| format!("removing dm-verity device {name}")),
        }
    }
}

/// Where the device called `name` is mounted in this process's mount namespace, if it is.
///
/// # Errors
/// The system's.
pub fn mounted(name: &str) -> Result<Option<PathBuf>> {
    let Some(control) = control()? else {
        return Ok(None);
    };
    let device = match call(&control, Call::Status, name, 0, None) {
        Ok(answer) if answer.open_count > 0 => unpack(answer.device),
        Ok(_) => return Ok(None),
        Err(error) if is(&error, rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error).during(|| format!("looking at device-mapper device {name}")),
    };
    let number = format!("{}:{}", device.0, device.1);
    let mount = mountinfo::mount_of_device(&number).during(|| "reading the mount table".to_owned())?;
    Ok(mount.map(|mount| mount.path))
}

/// Every device whose name starts with `prefix`, from the system.
///
/// # Errors
/// The system's.
pub fn starting_with(prefix: &str) -> Result<Vec<Mapped>> {
    const BLOCK: &str = "/sys/class/block";
    let entries = match fs::read_dir(BLOCK) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.during(|| format!("reading {BLOCK}"))?,
    };
    let text = |path: PathBuf| fs::read_to_string(path).unwrap_or_default().trim_end().to_owned();
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| Mapped {
            name: text(entry.path().join("dm/name")),
            node: Path::new("/dev").join(entry.file_name()),
            number: text(entry.path().join("dev")),
        })
        .filter(|mapped| !mapped.name.is_empty() && mapped.name.starts_with(prefix))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The device mapper; `None` if the kernel has none.
fn control() -> Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).open(CONTROL) {
        Ok(control) => Ok(Some(control)),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || is(&error, rustix::io::Errno::NODEV)
                || is(&error, rustix::io::Errno::NXIO) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).during(|| format!("opening {CONTROL}")),
    }
}

fn is(error: &io::Error, errno: rustix::io::Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Major and minor number in the kernel's packing (`huge_decode_dev`).
fn unpack(device: u64) -> (u64, u64) {
    (
        (device & 0xf_ff00) >> 8,
        device & 0xff | (device >> 12) & 0xf_ff00,
    )
}

/// The device with this number, once its node is there.
fn node(name: &str, device: u64) -> Result<Mapped> {
    let (major, minor) = unpack(device);
    let node = PathBuf::from(format!("/dev/dm-{minor}"));
    let start = Instant::now();
    loop {
        match fs::metadata(&node) {
            Ok(_) => {
                return Ok(Mapped {
                    name: name.to_owned(),
                    node,
                    number: format!("{major}:{minor}"),
                });
            }
            Err(error) if start.elapsed() >= LIMIT => {
                return Err(error).during(|| format!("waiting for {}", node.display()));
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_made_is_gone() {
        remove("cofferdam-no-such-device").unwrap();
        assert_eq!(mounted("cofferdam-no-such-device").unwrap(), None);
        assert!(!is_corrupt("cofferdam-no-such-device").unwrap());
        assert_eq!(starting_with("cofferdam-no-such-device").unwrap(), []);
    }

    #[test]
    fn device_numbers_are_unpacked_as_the_kernel_packs_them() {
        assert_eq!(unpack(0xfd00), (253, 0));
        assert_eq!(unpack(0x0010_fd01), (253, 0x101));
    }
}
