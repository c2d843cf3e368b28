//! A real tree, archived by GNU tar in each of its formats, and what it extracts again.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};

use crate::{
    compare::assert_same,
    mounts::{BOTH, Mounted, run},
};

/// Files of every type and size, with all that a file can have.
fn grow(root: &Path) {
    let path = |name: &str| root.join(name);
    for dir in ["empty", "usr/lib", "deep", "many", "sticky"] {
        fs::create_dir_all(path(dir)).unwrap();
    }
    fs::set_permissions(path("sticky"), PermissionsExt::from_mode(0o3777)).unwrap();
    for (name, length) in [
        ("none", 0),
        ("one", 1),
        ("block", 4096),
        ("block1", 4097),
        ("big", 3_000_001),
    ] {
        let bytes: Vec<u8> = (0..length).map(|n: usize| (n * 31 + n / 251) as u8).collect();
        fs::write(path(name), bytes).unwrap();
    }
    fs::write(path("usr/lib/setuid"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(path("usr/lib/setuid"), PermissionsExt::from_mode(0o6755)).unwrap();
    for number in 0..5 {
        fs::hard_link(path("big"), path(&format!("usr/big-{number}"))).unwrap();
    }
    symlink("usr/lib", path("lib")).unwrap();
    symlink("x".repeat(59), path("link59")).unwrap();
    symlink("x".repeat(60), path("link60")).unwrap();
    symlink(format!("/{}", "long/".repeat(700)), path("link3500")).unwrap();
    let node = |name: &str, kind, device| {
        mknodat(CWD, path(name), kind, Mode::from_raw_mode(0o640), device).unwrap()
    };
    node("null", FileType::CharacterDevice, makedev(1, 3));
    node("disk", FileType::BlockDevice, makedev(259, 70_000));
    node("pipe", FileType::Fifo, 0);
    for number in 0..700 {
        fs::write(
            path(&format!("many/a name of middling length, number {number}")),
            number.to_string(),
        )
        .unwrap();
    }
    let mut deep = path("deep");
    for _ in 0..20 {
        deep = deep.join("d".repeat(100));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("n".repeat(255)), "at the bottom").unwrap();
    fs::write(path("na\u{ef}ve \u{65e5}\u{672c} \n\"'\\"), "an odd name").unwrap();
    chown(&path("one"), 70_000, 4_000_000_000);
    chown(&path("usr"), 1000, 100);
    std::os::unix::fs::lchown(path("lib"), Some(12), Some(34)).unwrap();
    holes(&path("holes"));
    let set =
        |name: &str, key: &str, value: &[u8]| lsetxattr(path(name), key, value, XattrFlags::empty()).unwrap();
    set("one", "user.comment", b"a value\nwith a line and a \0");
    set("usr", "user.of-a-directory", b"");
    set("block", "user.large", &[7; 2000]);
    set("none", "trusted.t", b"x");
    // cap_net_raw+ep, as setcap stores it.
    set(
        "usr/lib/setuid",
        "security.capability",
        &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    // user::rw- user:1000:r-- group::r-- mask::r-- other::---, as the kernel takes it.
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1u16, 6u16, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    set("block1", "system.posix_acl_access", &acl);
    set("many", "system.posix_acl_default", &acl);
    touch(&path("none"), -1_000_000_000, 123_456_789);
    touch(&path("block"), 1_700_000_000, 1);
    touch(&path("link60"), 5_000_000_000, 999_999_999);
    touch(&path("empty"), 0, 0);
}

fn chown(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
}

/// 40 MB of which three pieces hold data, one of them at the very end.
fn holes(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(40_000_000).unwrap();
    for at in [100_000, 20_000_001, 39_999_990] {
        file.write_all_at(b"0123456789", at).unwrap();
    }
}

fn touch(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn what_tar_archives_is_mounted_as_tar_extracts_it() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    grow(&tree);
    for format in ["gnu", "posix"] {
        let archive = dir.path().join(format!("{format}.tar"));
        let mut tar = Command::new("tar");
        tar.arg("--create")
            .arg(format!("--format={format}"))
            .args(["--sparse", "--sort=name"]);
        if format == "posix" {
            tar.args(["--xattrs", "--xattrs-include=*", "--acls"]);
        }
        run(tar.arg("--file").arg(&archive).arg("-C").arg(&tree).arg("."));
        let extracted = dir.path().join(format);
        fs::create_dir(&extracted).unwrap();
        run(Command::new("tar")
            .args([
                "--extract",
                "--preserve-permissions",
                "--same-owner",
                "--xattrs",
                "--xattrs-include=*",
                "--acls",
            ])
            .arg("--file")
            .arg(&archive)
            .arg("-C")
            .arg(&extracted));
        let archive = fs::read(archive).unwrap();
        for filesystem in BOTH {
            let mounted = Mounted::new(&archive, filesystem);
            let names = assert_same(&extracted, &mounted.root());
            assert!(names > 740, "{names}");
            assert_eq!(mounted.layer.entries, names as u64);
            assert_eq!(mounted.layer.ignored_xattrs, 0);
        }
    }
}

#[test]
fn holes_take_no_room_on_the_host() {
    use std::os::unix::fs::MetadataExt;

    use cofferdam_layer::Filesystem;

    let dir = tempfile::tempdir().unwrap();
    holes(&dir.path().join("holes"));
    let archive = dir.path().join("a.tar");
    run(Command::new("tar")
        .args(["--create", "--sparse", "--file"])
        .arg(&archive)
        .arg("-C")
        .arg(dir.path())
        .arg("holes"));
    for filesystem in BOTH {
        let layer = dir.path().join("layer.raw");
        crate::mounts::make(
            &fs::read(&archive).unwrap(),
            &layer,
            crate::mounts::raw(filesystem),
        )
        .unwrap();
        let facts = fs::metadata(&layer).unwrap();
        assert!(
            facts.blocks() * 512 < 300_000,
            "{filesystem:?}: {} blocks",
            facts.blocks()
        );
        if filesystem == Filesystem::Ext4 {
            assert!(facts.len() < 1_000_000, "{}", facts.len());
        }
    }
}
