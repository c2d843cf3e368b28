//! Finding a SCSI disk by (controller, LUN) from what the system says.
//!
//! The rule, shared with the QEMU backend: controller N is the N-th virtio-scsi PCI function in ascending PCI
//! address order; a disk is channel 0, target 0, LUN l of it. Device names are read, never counted up.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use cofferdam_mounting::mountinfo;

use super::verity;
use crate::error::{AgentError, During, Result};

/// How long a disk may take to appear.
const LIMIT: Duration = Duration::from_secs(5);
/// Pause between looks.
const POLL: Duration = Duration::from_millis(10);
/// PCI vendor of virtio devices (virtio 1.2 §4.1.2).
const VIRTIO_VENDOR: &str = "0x1af4";
/// PCI device ids of virtio-scsi: transitional and modern (virtio 1.2 §4.1.2.1, §5).
const VIRTIO_SCSI: [&str; 2] = ["0x1004", "0x1048"];

/// Where sysfs and devtmpfs are; other roots only in tests.
#[derive(Debug, Clone)]
pub(crate) struct System {
    /// `/sys`.
    pub(crate) sys: PathBuf,
    /// `/dev`.
    pub(crate) dev: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self {
            sys: "/sys".into(),
            dev: "/dev".into(),
        }
    }
}

/// A disk's block device, or one partition of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockDevice {
    /// The device node.
    pub(crate) node: PathBuf,
    /// Whether the device itself refuses writes.
    pub(crate) read_only: bool,
}

/// What a look did not find.
type Missing = String;

impl System {
    /// Waits for the disk at (`controller`, `lun`), or its partition `partition` (from 1; 0 is the whole disk),
    /// until its node can be opened.
    pub(crate) fn wait_for_disk(&self, controller: u8, lun: u8, partition: u64) -> Result<BlockDevice> {
        let device = match partition {
            0 => format!("SCSI disk {controller}:{lun}"),
            number => format!("partition {number} of SCSI disk {controller}:{lun}"),
        };
        self.scan(controller, lun);
        wait(&device, LIMIT, || self.disk(controller, lun, partition))
    }

    /// Asks the kernel to look for this one disk. It looks by itself when the hypervisor announces one, but not for
    /// LUN 0 on a kernel started with `scsi_mod.scan=manual`; and an announcement can be lost. A disk that is known
    /// already stays as it is.
    fn scan(&self, controller: u8, lun: u8) {
        if let Ok((host, number)) = self.host(controller)
            && self.scsi_device(controller, lun).is_err()
        {
            let scan = host.join(format!("scsi_host/host{number}/scan"));
            if let Err(error) = fs::write(&scan, format!("0 0 {lun}")) {
                tracing::warn!(%error, scan = %scan.display(), "asking for a scan");
            }
        }
    }

    fn disk(&self, controller: u8, lun: u8, partition: u64) -> std::result::Result<BlockDevice, Missing> {
        let device = self.scsi_device(controller, lun)?;
        let mut block = only_entry(&device.join("block"))?;
        if read_text(&block.join("size")) == "0" {
            return Err(ask_again(&device, &block));
        }
        let read_only = read_text(&block.join("ro")) == "1";
        if partition != 0 {
            block = entries(&block)?
                .into_iter()
                .find(|entry| read_text(&entry.join("partition")) == partition.to_string())
                .ok_or_else(|| format!("{} has no partition {partition}", block.display()))?;
        }
        self.node(&block).map(|node| BlockDevice { node, read_only })
    }

    /// The node of the block device whose sysfs directory is `block`, once it opens.
    pub(crate) fn node(&self, block: &Path) -> std::result::Result<PathBuf, Missing> {
        let name = block
            .file_name()
            .ok_or_else(|| format!("{} has no name", block.display()))?;
        let node = self.dev.join(name);
        match fs::File::open(&node) {
            Ok(_) => Ok(node),
            // ENOENT and ENXIO while the kernel is still setting it up; anything else shows in the message too.
            Err(error) => Err(format!("{}: {error}", node.display())),
        }
    }

    /// The sysfs directory of the SCSI device.
    fn scsi_device(&self, controller: u8, lun: u8) -> std::result::Result<PathBuf, Missing> {
        let (host, number) = self.host(controller)?;
        let device = host
            .join(format!("target{number}:0:0"))
            .join(format!("{number}:0:0:{lun}"));
        if device.is_dir() {
            Ok(device)
        } else {
            Err(format!("no {}", device.display()))
        }
    }

    /// The sysfs directory of the controller's SCSI host, and the host's number.
    fn host(&self, controller: u8) -> std::result::Result<(PathBuf, String), Missing> {
        let controllers = self.controllers()?;
        let function = controllers.get(usize::from(controller)).ok_or_else(|| {
            format!(
                "the VM has {} virtio-scsi controllers, so none with index {controller}",
                controllers.len()
            )
        })?;
        let virtio = starting_with(function, "virtio")?;
        let host = starting_with(&virtio, "host")?;
        let number = host
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix("host"))
            .unwrap_or_default()
            .to_owned();
        Ok((host, number))
    }

    /// The virtio-scsi PCI functions in ascending address order.
    fn controllers(&self) -> std::result::Result<Vec<PathBuf>, Missing> {
        let mut functions: Vec<_> = entries(&self.sys.join("bus/pci/devices"))?
            .into_iter()
            .filter(|function| {
                read_text(&function.join("vendor")) == VIRTIO_VENDOR
                    && VIRTIO_SCSI.contains(&read_text(&function.join("device")).as_str())
            })
            .filter_map(|function| Some((pci_address(function.file_name()?.to_str()?)?, function)))
            .collect();
        functions.sort();
        Ok(functions.into_iter().map(|(_, function)| function).collect())
    }

    /// Tells the kernel to let go of the disk. A disk that is not there counts as let go.
    pub(crate) fn eject(&self, controller: u8, lun: u8) -> Result<()> {
        let Ok(device) = self.scsi_device(controller, lun) else {
            return Ok(());
        };
        if let Ok(block) = only_entry(&device.join("block")) {
            refuse_if_mounted(controller, lun, &block)?;
            verity::clear_disk(controller, lun)?;
        }
        let delete = device.join("delete");
        let outcome = fs::OpenOptions::new()
            .write(true)
            .open(&delete)
            .and_then(|mut file| file.write_all(b"1"));
        match outcome {
            // ENODEV: it went away between the look and the write.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) =>
            {
                Ok(())
            }
            outcome => outcome.during(|| format!("writing to {}", delete.display())),
        }
    }
}

fn refuse_if_mounted(controller: u8, lun: u8, block: &Path) -> Result<()> {
    let parts = entries(block).unwrap_or_default();
    let numbers = std::iter::once(block.to_owned())
        .chain(parts)
        .map(|entry| read_text(&entry.join("dev")));
    for number in numbers.filter(|number| !number.is_empty()) {
        if let Some(mount) =
            mountinfo::mount_of_device(&number).during(|| "reading the mount table".into())?
        {
            return Err(AgentError::Busy {
                what: format!("SCSI disk {controller}:{lun}"),
                holder: format!("it is mounted on {}", mount.path.display()),
            });
        }
    }
    Ok(())
}

/// Has the kernel read the capacity of a disk again. Each hot-plug tells every disk of its controller that the LUNs have
/// changed, as an error to the next command; when many disks come at once, the kernel gives up on asking for the capacity
/// and takes it for 0 ever after.
fn ask_again(device: &Path, block: &Path) -> Missing {
    let rescan = device.join("rescan");
    tracing::info!(disk = %block.display(), "the kernel has no capacity for it: asking again");
    match fs::write(&rescan, "1") {
        Ok(()) => format!("{} has no capacity yet", block.display()),
        Err(error) => format!(
            "{} has no capacity, and {}: {error}",
            block.display(),
            rescan.display()
        ),
    }
}

/// Repeats `look` until it finds something or `limit` has passed.
pub(crate) fn wait<T>(
    device: &str,
    limit: Duration,
    look: impl Fn() -> std::result::Result<T, Missing>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(missing) if start.elapsed() >= limit => {
                return Err(AgentError::DeviceMissing {
                    device: device.to_owned(),
                    limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
                    missing,
                });
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// `domain:bus:device.function`, hexadecimal.
pub(crate) fn pci_address(name: &str) -> Option<(u32, u8, u8, u8)> {
    let (rest, function) = name.rsplit_once('.')?;
    let mut parts = rest.splitn(3, ':');
    let domain = u32::from_str_radix(parts.next()?, 16).ok()?;
    let bus = u8::from_str_radix(parts.next()?, 16).ok()?;
    let device = u8::from_str_radix(parts.next()?, 16).ok()?;
    Some((domain, bus, device, u8::from_str_radix(function, 16).ok()?))
}

pub(crate) fn entries(directory: &Path) -> std::result::Result<Vec<PathBuf>, Missing> {
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(|error| format!("{}: {error}", directory.display()))
}

pub(crate) fn only_entry(directory: &Path) -> std::result::Result<PathBuf, Missing> {
    entries(directory)?
        .into_iter()
        .next()
        .ok_or_else(|| format!("{} is empty", directory.display()))
}

pub(crate) fn starting_with(directory: &Path, prefix: &str) -> std::result::Result<PathBuf, Missing> {
    entries(directory)?
        .into_iter()
        .find(|entry| {
            let digits = entry
                .file_name()
                .and_then(|name| name.to_str()?.strip_prefix(prefix));
            digits
                .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .ok_or_else(|| format!("{} has no {prefix}N", directory.display()))
}

/// A sysfs attribute without its newline; empty if it cannot be read.
pub(crate) fn read_text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree with virtio-scsi functions at the given PCI addresses; host numbers run against address order.
    fn system(addresses: &[&str]) -> (tempfile::TempDir, System) {
        let dir = tempfile::tempdir().unwrap();
        let system = System {
            sys: dir.path().join("sys"),
            dev: dir.path().join("dev"),
        };
        fs::create_dir_all(&system.dev).unwrap();
        for (index, address) in addresses.iter().enumerate() {
            let function = system.sys.join("bus/pci/devices").join(address);
            let host = addresses.len() - index;
            fs::create_dir_all(function.join(format!("virtio{index}/host{host}/target{host}:0:0"))).unwrap();
            fs::write(function.join("vendor"), "0x1af4\n").unwrap();
            fs::write(function.join("device"), "0x1048\n").unwrap();
        }
        let network = system.sys.join("bus/pci/devices/0000:00:01.0");
        fs::create_dir_all(&network).unwrap();
        fs::write(network.join("vendor"), "0x1af4\n").unwrap();
        fs::write(network.join("device"), "0x1041\n").unwrap();
        (dir, system)
    }

    fn plug(system: &System, address: &str, lun: u8, name: &str) -> PathBuf {
        let function = system.sys.join("bus/pci/devices").join(address);
        let host = starting_with(&starting_with(&function, "virtio").unwrap(), "host").unwrap();
        let number = host
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .strip_prefix("host")
            .unwrap()
            .to_owned();
        let device = host.join(format!("target{number}:0:0/{number}:0:0:{lun}"));
        fs::create_dir_all(device.join("block").join(name)).unwrap();
        fs::write(device.join("block").join(name).join("ro"), "0\n").unwrap();
        fs::write(device.join("delete"), "").unwrap();
        fs::write(system.dev.join(name), "").unwrap();
        device
    }

    #[test]
    fn controllers_are_numbered_by_pci_address_not_by_host_number() {
        let (_dir, system) = system(&["0000:00:10.0", "0000:00:09.0", "0001:00:02.0"]);
        plug(&system, "0000:00:09.0", 3, "sdq");
        plug(&system, "0000:00:10.0", 3, "sda");
        plug(&system, "0001:00:02.0", 0, "sdb");
        let node = |controller, lun| system.disk(controller, lun, 0).map(|found| found.node);
        assert_eq!(node(0, 3), Ok(system.dev.join("sdq")));
        assert_eq!(node(1, 3), Ok(system.dev.join("sda")));
        assert_eq!(node(2, 0), Ok(system.dev.join("sdb")));
        assert_eq!(
            node(3, 0).unwrap_err(),
            "the VM has 3 virtio-scsi controllers, so none with index 3"
        );
    }

    #[test]
    fn what_is_missing_is_named_at_each_stage() {
        let (_dir, system) = system(&["0000:00:09.0"]);
        assert!(
            system
                .disk(0, 7, 0)
                .unwrap_err()
                .ends_with("/target1:0:0/1:0:0:7")
        );
        let device = plug(&system, "0000:00:09.0", 7, "sda");
        assert!(system.disk(0, 7, 1).unwrap_err().contains("has no partition 1"));
        fs::remove_file(system.dev.join("sda")).unwrap();
        assert!(system.disk(0, 7, 0).unwrap_err().contains("sda: No such file"));
        fs::remove_dir_all(device.join("block/sda")).unwrap();
        assert!(system.disk(0, 7, 0).unwrap_err().contains("block is empty"));
    }

    #[test]
    fn a_disk_without_a_capacity_is_asked_for_it_again() {
        let (_dir, system) = system(&["0000:00:09.0"]);
        let device = plug(&system, "0000:00:09.0", 7, "sda");
        fs::write(device.join("block/sda/size"), "0\n").unwrap();
        assert!(
            system
                .disk(0, 7, 0)
                .unwrap_err()
                .ends_with("sda has no capacity yet")
        );
        assert_eq!(fs::read_to_string(device.join("rescan")).unwrap(), "1");
        fs::write(device.join("block/sda/size"), "2048\n").unwrap();
        assert_eq!(system.disk(0, 7, 0).unwrap().node, system.dev.join("sda"));
    }

    #[test]
    fn a_partition_is_found_by_its_number_not_its_name() {
        let (_dir, system) = system(&["0000:00:09.0"]);
        let device = plug(&system, "0000:00:09.0", 0, "sda");
        for (name, number) in [("sda9", "2"), ("sda2", "9")] {
            let part = device.join("block/sda").join(name);
            fs::create_dir_all(&part).unwrap();
            fs::write(part.join("partition"), number).unwrap();
            fs::write(system.dev.join(name), "").unwrap();
        }
        assert_eq!(system.disk(0, 0, 2).unwrap().node, system.dev.join("sda9"));
    }

    #[test]
    fn a_disk_that_appears_late_is_waited_for() {
        let (_dir, system) = system(&["0000:00:09.0"]);
        let later = system.clone();
        let plugging = thread::spawn(move || {
            thread::sleep(Duration::from_millis(60));
            plug(&later, "0000:00:09.0", 1, "sdc");
        });
        assert_eq!(
            system.wait_for_disk(0, 1, 0).unwrap().node,
            system.dev.join("sdc")
        );
        plugging.join().unwrap();
    }

    #[test]
    fn waiting_ends_with_the_missing_thing_named() {
        let error = wait("SCSI disk 0:1", Duration::from_millis(30), || {
            Err::<(), _>("no x".to_owned())
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "SCSI disk 0:1 did not appear within 30 ms: no x"
        );
    }

    #[test]
    fn ejecting_writes_to_delete_and_an_absent_disk_is_done() {
        let (_dir, system) = system(&["0000:00:09.0"]);
        system.eject(0, 5).unwrap();
        system.eject(9, 5).unwrap();
        let device = plug(&system, "0000:00:09.0", 5, "sda");
        system.eject(0, 5).unwrap();
        assert_eq!(fs::read_to_string(device.join("delete")).unwrap(), "1");
    }

    #[test]
    fn pci_addresses_order_as_numbers() {
        assert!(pci_address("0000:00:0a.0") < pci_address("0000:00:10.0"));
        assert!(pci_address("0000:00:1f.7") < pci_address("10000:00:00.0"));
        assert_eq!(pci_address("usb1"), None);
    }
}
