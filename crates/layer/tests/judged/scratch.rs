//! Scratch disks, as qemu-img, e2fsck and the kernel see them.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
};

use cofferdam_layer::{ScratchError, scratch};

use crate::mounts::{run, unmount};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[test]
fn disks_of_every_size_are_in_order_and_take_little_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    for size in [
        16 * MIB,
        64 * MIB,
        130 * MIB,
        GIB,
        10 * GIB,
        100 * GIB,
        2048 * GIB,
    ] {
        let raw = dir.path().join("disk.raw");
        let vhdx = dir.path().join("disk.vhdx");
        let made = scratch(&raw, size).unwrap();
        assert_eq!((made.disk_bytes, made.file_bytes), (size, size));
        run(Command::new("e2fsck").arg("-fn").arg(&raw));
        let made = scratch(&vhdx, size).unwrap();
        // A bitmap for each 2 GiB, and a few hundred KiB.
        let allowed = MIB + size / (2 * GIB) * 16 * 1024;
        assert!(
            made.allocated_bytes < allowed,
            "{size}: {} bytes",
            made.allocated_bytes
        );
        assert_eq!(made.allocated_bytes, fs::metadata(&vhdx).unwrap().blocks() * 512);
        run(Command::new("qemu-img").args(["check", "-f", "vhdx"]).arg(&vhdx));
        let info = run(Command::new("qemu-img")
            .args(["info", "-f", "vhdx", "--output=json"])
            .arg(&vhdx));
        assert!(info.contains(&format!("\"virtual-size\": {size}")), "{info}");
        if size <= GIB {
            let converted = dir.path().join("converted");
            run(Command::new("qemu-img")
                .args(["convert", "-f", "vhdx", "-O", "raw"])
                .arg(&vhdx)
                .arg(&converted));
            run(Command::new("e2fsck").arg("-fn").arg(&converted));
        }
        fs::remove_file(&raw).unwrap();
        fs::remove_file(&vhdx).unwrap();
    }
}

#[test]
fn a_disk_is_written_until_it_is_full_and_is_in_order_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, root) = (dir.path().join("disk.raw"), dir.path().join("root"));
    fs::create_dir(&root).unwrap();
    // Two groups: the second is one that nobody has initialised.
    scratch(&disk, 200 * MIB).unwrap();
    run(Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(&root));
    let written = fill(&root);
    unmount(&root);
    run(Command::new("e2fsck").arg("-fn").arg(&disk));
    assert!(written > 150 * MIB, "{written} bytes fit");
}

fn fill(root: &Path) -> u64 {
    let piece = vec![0x5A; MIB as usize];
    let mut written = 0;
    fs::create_dir(root.join("d")).unwrap();
    for number in 0.. {
        let mut file = match File::create(root.join(format!("d/{number}"))) {
            Ok(file) => file,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
                return written;
            }
        };
        match file.write_all(&piece) {
            Ok(()) => written += MIB,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
                return written;
            }
        }
    }
    unreachable!("a disk is full at some time")
}

#[test]
fn what_is_there_is_not_overwritten_and_what_cannot_be_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.vhdx");
    scratch(&disk, 64 * MIB).unwrap();
    let before = fs::read(&disk).unwrap();
    assert!(matches!(scratch(&disk, 64 * MIB), Err(ScratchError::Exists(_))));
    assert!(fs::read(&disk).unwrap() == before);
    let new = dir.path().join("new.vhdx");
    for size in [0, 15 * MIB, 64 * MIB + 1, 17 << 40] {
        assert!(
            matches!(scratch(&new, size), Err(ScratchError::Size(_))),
            "{size}"
        );
    }
    assert!(matches!(
        scratch(&dir.path().join("disk.qcow2"), GIB),
        Err(ScratchError::Name(_))
    ));
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["disk.vhdx"]);
}

#[test]
fn no_two_disks_have_the_same_identity() {
    let dir = tempfile::tempdir().unwrap();
    let uuid = |name: &str| {
        let disk = dir.path().join(name);
        scratch(&disk, 64 * MIB).unwrap();
        let bytes = fs::read(disk).unwrap();
        bytes[1024 + 0x68..][..16].to_vec()
    };
    assert_ne!(uuid("a.raw"), uuid("b.raw"));
}
