//! Loop devices: an image's bytes as a block device.
//!
//! Each is set to let go of its file when its last user closes it (autoclear), and this process keeps it open from
//! its configuration on. So a device that was never mounted goes with its owner, however that ends, and one that was
//! goes with its mount. The image is locked (flock(2)) through the very descriptor the device keeps: the lock lives as
//! long as the device does, also when its owner is gone.

use std::{
    fs::{self, File, OpenOptions},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use cofferdam_ledger::address::ScsiAddress;
use cofferdam_mounting::mountinfo;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{
    Owner,
    error::{During, HostError, Result},
    ioctl::{self, AUTOCLEAR, Config, Info, READ_ONLY},
};

const CONTROL: &str = "/dev/loop-control";
const BLOCK: &str = "/sys/block";
/// How often another process may take the free device first.
const TRIES: u32 = 100;
/// Everybody is told of the same free device, so of many that ask at once only one would get it each time.
static FREE: Mutex<()> = Mutex::new(());
/// How long a device may take to go once nobody of ours uses it: others look at new devices for a moment.
const GONE_LIMIT: Duration = Duration::from_secs(3);
/// How long another process that was faster is let go ahead.
const TURN: Duration = Duration::from_millis(2);
const POLL: Duration = Duration::from_millis(5);

/// How a file becomes a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Bytes of the file that are shown; 0 for all.
    pub(crate) size_bytes: u64,
    pub(crate) read_only: bool,
}

/// A loop device of ours, kept open.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    pub(crate) node: PathBuf,
    /// It goes when this is closed, unless it is mounted.
    _open: File,
}

/// A loop device as the system shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) node: PathBuf,
    pub(crate) address: ScsiAddress,
    /// `major:minor`, as the mount table has it.
    pub(crate) number: String,
    /// The file behind it.
    pub(crate) backing: String,
}

/// Attaches a file.
pub(crate) fn attach(owner: &Owner, address: ScsiAddress, path: &Path, shape: Shape) -> Result<LoopDevice> {
    let image = OpenOptions::new()
        .read(true)
        .write(!shape.read_only)
        .open(path)
        .during(|| format!("opening {}", path.display()))?;
    lock(&image, path, shape.read_only)?;
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open(CONTROL)
        .during(|| format!("opening {CONTROL}: loop devices are needed"))?;
    let flags = AUTOCLEAR | if shape.read_only { READ_ONLY } else { 0 };
    let info = Info::new(shape.size_bytes, flags, owner.mark(address));
    let fd = u32::try_from(image.as_raw_fd()).map_err(|_| Errno::BADF);
    let config = Config::new(fd.during(|| "naming a descriptor".to_owned())?, info);
    let _turn = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..TRIES {
        let number = ioctl::free_number(&control).during(|| "looking for a free loop device".to_owned())?;
        let node = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new()
            .read(true)
            .write(!shape.read_only)
            .open(&node)
            .during(|| format!("opening {}", node.display()))?;
        match ioctl::configure(&device, config) {
            Ok(()) => {
                return Ok(LoopDevice { node, _open: device });
            }
            // Another process was faster.
            Err(Errno::BUSY) => thread::sleep(TURN),
            outcome => outcome.during(|| format!("attaching {} to {}", path.display(), node.display()))?,
        }
    }
    Err(HostError::Busy {
        what: "every free loop device".to_owned(),
        holder: format!("other processes took it first, {TRIES} times"),
    })
}

/// One writer, or any number of readers. QEMU's own locks on images are of another kind and are QEMU's business.
fn lock(image: &File, path: &Path, read_only: bool) -> Result<()> {
    let operation = if read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    match flock(image, operation) {
        Err(Errno::WOULDBLOCK) => Err(HostError::Busy {
            what: path.display().to_string(),
            holder: if read_only {
                "somebody writes to it".to_owned()
            } else {
                "somebody else uses it".to_owned()
            },
        }),
        outcome => outcome.during(|| format!("locking {}", path.display())),
    }
}

/// Every loop device of an owner, from the system.
pub(crate) fn of_owner(owner: &Owner) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(BLOCK)
        .during(|| format!("reading {BLOCK}"))?
        .flatten()
    {
        let (name, sys) = (entry.file_name(), entry.path());
        // Only a device with a file has this directory.
        if !name.as_encoded_bytes().starts_with(b"loop") || !sys.join("loop").is_dir() {
            continue;
        }
        let node = Path::new("/dev").join(&name);
        // It may have gone meanwhile.
        let Some(address) = File::open(&node)
            .ok()
            .and_then(|device| owner.address(&ioctl::status(device).ok()?.file_name))
        else {
            continue;
        };
        let text = |attribute: &str| {
            let text = fs::read_to_string(sys.join(attribute)).unwrap_or_default();
            text.trim_end_matches('\n').to_owned()
        };
        found.push(Found {
            node,
            address,
            number: text("dev"),
            backing: text("loop/backing_file"),
        });
    }
    found.sort_by_key(|device| device.address);
    Ok(found)
}

/// Waits until every device an owner has at an address is gone; whoever kept one open has closed it.
pub(crate) fn detach(owner: &Owner, address: ScsiAddress) -> Result<()> {
    let start = Instant::now();
    loop {
        let mut left = of_owner(owner)?;
        left.retain(|device| device.address == address);
        let Some(device) = left.first() else {
            return Ok(());
        };
        if start.elapsed() >= GONE_LIMIT {
            return Err(HostError::Busy {
                what: format!("{} ({})", device.node.display(), device.backing),
                holder: holder(device),
            });
        }
        for device in left {
            // Gone since, or in use: the next look tells.
            if let Ok(open) = File::open(&device.node)
                && ioctl::status(&open).is_ok_and(|info| owner.address(&info.file_name) == Some(address))
            {
                let _ = ioctl::clear(&open);
            }
        }
        thread::sleep(POLL);
    }
}

fn holder(device: &Found) -> String {
    match mountinfo::mount_of_device(&device.number) {
        Ok(Some(mount)) => format!("it is mounted on {}", mount.path.display()),
        _ => "a process has it open, or it is mounted in another mount namespace".to_owned(),
    }
}
