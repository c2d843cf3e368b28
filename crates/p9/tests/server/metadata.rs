//! Owners, modes, times, extended attributes.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use cofferdam_p9::wire::{OpenFlags, SetattrMask};

use crate::{
    client::Change,
    rig::{Rig, is_root},
};

fn mode(rig: &Rig, name: &str) -> u32 {
    std::fs::symlink_metadata(rig.path(name)).unwrap().mode() & 0o7777
}

fn owner(rig: &Rig, name: &str) -> (u32, u32) {
    let metadata = std::fs::symlink_metadata(rig.path(name)).unwrap();
    (metadata.uid(), metadata.gid())
}

/// The owner a new entry gets: the client's if the server is root, else the server's.
fn expected_owner(rig: &Rig, uid: u32, gid: u32) -> (u32, u32) {
    if is_root() { (uid, gid) } else { owner(rig, ".") }
}

#[test]
fn a_new_entry_belongs_to_the_user_of_the_fid_and_the_group_of_the_request() {
    let rig = Rig::new();
    let mut client = rig.connect();
    let root = client.attach_as("share", 1234).unwrap();
    client
        .create(root, "f", OpenFlags::READ_WRITE, 0o640, 77)
        .unwrap();
    client.mkdir(root, "d", 0o750, 77).unwrap();
    client.symlink(root, "s", "t", 77).unwrap();
    for name in ["f", "d", "s"] {
        assert_eq!(owner(&rig, name), expected_owner(&rig, 1234, 77), "{name}");
    }
    assert_eq!((mode(&rig, "f"), mode(&rig, "d")), (0o640, 0o750));
    let unnamed = client.attach_as("share", u32::MAX).unwrap();
    client.mkdir(unnamed, "e", 0o755, u32::MAX).unwrap();
    assert_eq!(
        owner(&rig, "e"),
        (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw()
        )
    );
}

#[test]
fn a_new_entry_has_the_mode_asked_for_whatever_the_servers_umask() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    client.create(root, "f", OpenFlags::READ_WRITE, 0o666, 0).unwrap();
    client
        .create(root, "suid", OpenFlags::READ_WRITE, 0o6755, 0)
        .unwrap();
    client.mkdir(root, "d", 0o1777, 0).unwrap();
    client.mknod(root, "p", libc::S_IFIFO | 0o622, (0, 0)).unwrap();
    client.mknod(root, "r", 0o604, (0, 0)).unwrap();
    let modes = ["f", "suid", "d", "p", "r"].map(|name| mode(&rig, name));
    assert_eq!(modes, [0o666, 0o6755, 0o1777, 0o622, 0o604]);
}

#[test]
fn a_set_group_id_directory_hands_its_group_on() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    client.mkdir(root, "d", 0o2775, 0).unwrap();
    let group = if is_root() { 55 } else { owner(&rig, "d").1 };
    std::os::unix::fs::chown(rig.path("d"), None, Some(group)).unwrap();
    std::fs::set_permissions(rig.path("d"), PermissionsExt::from_mode(0o2775)).unwrap();
    let d = client.walk(root, &["d"]).unwrap();
    client.create(d, "f", OpenFlags::READ_WRITE, 0o644, 99).unwrap();
    client.mkdir(d, "e", 0o755, 99).unwrap();
    assert_eq!(owner(&rig, "d/f").1, group);
    assert_eq!(owner(&rig, "d/e").1, group);
    assert_eq!(mode(&rig, "d/e"), 0o2755);
}

#[test]
fn a_default_acl_decides_the_mode_of_what_is_created_below() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    client.mkdir(root, "d", 0o777, 0).unwrap();
    let d = client.walk(root, &["d"]).unwrap();
    // user::rwx group::r-x other::---
    client
        .setxattr(
            d,
            "system.posix_acl_default",
            &acl(&[(1, 7, !0), (4, 5, !0), (0x20, 0, !0)]),
            0,
        )
        .unwrap();
    client.create(d, "f", OpenFlags::READ_WRITE, 0o666, 0).unwrap();
    assert_eq!(mode(&rig, "d/f"), 0o640);
}

#[test]
fn owner_and_mode_change_together_and_keep_the_set_user_id_bit() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    client.create(root, "f", OpenFlags::READ_WRITE, 0o755, 0).unwrap();
    let f = client.walk(root, &["f"]).unwrap();
    let valid = SetattrMask::MODE | SetattrMask::UID | SetattrMask::GID;
    let change = Change {
        valid,
        mode: 0o4755,
        uid: 12,
        gid: 13,
        ..Default::default()
    };
    let changed = client.setattr(f, change);
    if !is_root() {
        assert_eq!(changed.unwrap_err(), libc::EPERM);
        return;
    }
    changed.unwrap();
    let attributes = client.getattr(f).unwrap();
    assert_eq!(
        (attributes.mode & 0o7777, attributes.uid, attributes.gid),
        (0o4755, 12, 13)
    );
    client
        .setattr(
            f,
            Change {
                valid: SetattrMask::UID,
                uid: 14,
                ..Default::default()
            },
        )
        .unwrap();
    assert_eq!(owner(&rig, "f"), (14, 13));
    assert_eq!(
        mode(&rig, "f"),
        0o755,
        "a change of owner clears the set-user-ID bit"
    );
    client
        .setattr(
            f,
            Change {
                valid: SetattrMask::UID,
                uid: u32::MAX,
                ..Default::default()
            },
        )
        .unwrap();
    assert_eq!(owner(&rig, "f"), (14, 13), "no user given");
}

#[test]
fn times_are_set_to_a_value_or_to_now() {
    let rig = Rig::new();
    std::fs::write(rig.path("f"), "").unwrap();
    let (mut client, root) = rig.attached();
    let f = client.walk(root, &["f"]).unwrap();
    use SetattrMask as Mask;
    let valid = Mask::ATIME | Mask::ATIME_SET | Mask::MTIME | Mask::MTIME_SET;
    let change = Change {
        valid,
        atime: (1_000, 5),
        mtime: (2_000, 999_999_999),
        ..Default::default()
    };
    client.setattr(f, change).unwrap();
    let attributes = client.getattr(f).unwrap();
    assert_eq!((attributes.atime_sec, attributes.atime_nsec), (1_000, 5));
    assert_eq!(
        (attributes.mtime_sec, attributes.mtime_nsec),
        (2_000, 999_999_999)
    );
    client
        .setattr(
            f,
            Change {
                valid: Mask::MTIME,
                ..Default::default()
            },
        )
        .unwrap();
    let now = client.getattr(f).unwrap();
    assert!(now.mtime_sec > 1_000_000_000);
    assert_eq!(now.atime_sec, 1_000);
    for nanoseconds in [1_000_000_000, (1 << 30) - 1, (1 << 30) - 2, u64::MAX] {
        let change = Change {
            valid,
            mtime: (1, nanoseconds),
            ..Default::default()
        };
        assert_eq!(
            client.setattr(f, change).unwrap_err(),
            libc::EINVAL,
            "{nanoseconds}"
        );
    }
    let before_epoch = Change {
        valid: Mask::MTIME | Mask::MTIME_SET,
        mtime: (-5_i64 as u64, 0),
        ..Default::default()
    };
    client.setattr(f, before_epoch).unwrap();
    assert_eq!(std::fs::metadata(rig.path("f")).unwrap().mtime(), -5);
    client
        .setattr(
            f,
            Change {
                valid: Mask::CTIME,
                ..Default::default()
            },
        )
        .unwrap();
}

#[test]
fn attributes_are_the_systems_own() {
    let rig = Rig::new();
    std::fs::write(rig.path("f"), vec![1; 10_000]).unwrap();
    let (mut client, root) = rig.attached();
    let f = client.walk(root, &["f"]).unwrap();
    let attributes = client.getattr(f).unwrap();
    let metadata = std::fs::metadata(rig.path("f")).unwrap();
    assert_eq!(attributes.mode, metadata.mode());
    assert_eq!(
        (attributes.size, attributes.blocks),
        (metadata.size(), metadata.blocks())
    );
    assert_eq!(
        (attributes.nlink, attributes.blksize),
        (metadata.nlink(), metadata.blksize())
    );
    assert_eq!(attributes.mtime_sec as i64, metadata.mtime());
    assert_eq!(attributes.ctime_nsec as i64, metadata.ctime_nsec());
    let stats = client.statfs(root).unwrap();
    assert!(stats.bsize > 0 && stats.blocks > 0 && stats.namelen >= 255);
}

/// A POSIX ACL in its extended attribute's form: tag, permissions and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

#[test]
fn extended_attributes_are_set_read_listed_and_removed() {
    let rig = Rig::new();
    std::fs::write(rig.path("f"), "").unwrap();
    let (mut client, root) = rig.attached();
    let f = client.walk(root, &["f"]).unwrap();
    let (create, replace) = (1, 2);
    assert_eq!(client.getxattr(f, "user.a").unwrap_err(), libc::ENODATA);
    client.setxattr(f, "user.a", b"one", create).unwrap();
    assert_eq!(
        client.setxattr(f, "user.a", b"two", create).unwrap_err(),
        libc::EEXIST
    );
    assert_eq!(
        client.setxattr(f, "user.b", b"two", replace).unwrap_err(),
        libc::ENODATA
    );
    client.setxattr(f, "user.a", b"\0two\0", replace).unwrap();
    client.setxattr(f, "user.empty", b"", 0).unwrap();
    assert_eq!(client.getxattr(f, "user.a").unwrap(), b"\0two\0");
    assert_eq!(client.getxattr(f, "user.empty").unwrap(), b"");
    let names = client.getxattr(f, "").unwrap();
    assert_eq!(
        names
            .split(|byte| *byte == 0)
            .filter(|name| name.starts_with(b"user."))
            .count(),
        2
    );
    client.setxattr(f, "user.a", b"", replace).unwrap();
    assert_eq!(client.getxattr(f, "user.a").unwrap_err(), libc::ENODATA);
    assert_eq!(
        client.setxattr(f, "user.a", b"", replace).unwrap_err(),
        libc::ENODATA
    );

    let trusted = client.setxattr(f, "trusted.a", b"1", 0);
    assert_eq!(trusted, if is_root() { Ok(()) } else { Err(libc::EPERM) });
    let open = client.open_at(root, &["f"], OpenFlags::READ_WRITE).unwrap();
    client.setxattr(open, "user.open", b"1", 0).unwrap();
    assert_eq!(client.getxattr(open, "user.open").unwrap(), b"1");
}

#[test]
fn acls_are_set_and_removed() {
    let rig = Rig::new();
    std::fs::write(rig.path("f"), "").unwrap();
    let (mut client, root) = rig.attached();
    let f = client.walk(root, &["f"]).unwrap();
    let value = acl(&[(1, 6, !0), (2, 4, 1000), (4, 4, !0), (0x10, 4, !0), (0x20, 0, !0)]);
    client.setxattr(f, "system.posix_acl_access", &value, 0).unwrap();
    assert_eq!(client.getxattr(f, "system.posix_acl_access").unwrap(), value);
    assert_eq!(mode(&rig, "f"), 0o640);
    client.setxattr(f, "system.posix_acl_access", b"", 0).unwrap();
    assert_eq!(
        client.getxattr(f, "system.posix_acl_access").unwrap_err(),
        libc::ENODATA
    );
}

#[test]
fn the_hosts_own_security_labels_are_not_written() {
    let rig = Rig::new();
    std::fs::write(rig.path("f"), "").unwrap();
    let (mut client, root) = rig.attached();
    let f = client.walk(root, &["f"]).unwrap();
    for name in [
        "security.selinux",
        "security.ima",
        "system.other",
        "other.x",
        "plain",
    ] {
        assert_eq!(
            client.setxattr(f, name, b"x", 0).unwrap_err(),
            libc::EOPNOTSUPP,
            "{name}"
        );
    }
    assert_eq!(client.setxattr(f, "", b"x", 0).unwrap_err(), libc::EINVAL);
    assert_eq!(client.setxattr(f, "user.\0", b"x", 0).unwrap_err(), libc::EINVAL);
    assert_eq!(client.setxattr(f, "user.x", b"x", 4).unwrap_err(), libc::EINVAL);
}

#[test]
fn an_attribute_that_is_too_large_or_incomplete_is_not_set() {
    use cofferdam_p9::wire::{Reply, Request};
    let rig = Rig::new();
    std::fs::write(rig.path("f"), "").unwrap();
    let (mut client, root) = rig.attached();
    let f = client.walk(root, &["f"]).unwrap();
    assert_eq!(
        client.setxattr(f, "user.x", &vec![0; 65_537], 0).unwrap_err(),
        libc::E2BIG
    );

    let fid = client.walk(f, &[]).unwrap();
    let request = Request::Xattrcreate {
        fid,
        name: "user.x".into(),
        size: 4,
        flags: 0,
    };
    assert!(matches!(
        Reply::parse(&client.rpc(&request)),
        Ok((_, Reply::Xattrcreate {}))
    ));
    assert_eq!(client.write(fid, 1, b"x").unwrap_err(), libc::EINVAL);
    assert_eq!(client.write(fid, 0, b"xxxxx").unwrap_err(), libc::ENOSPC);
    assert_eq!(client.write(fid, 0, b"xx").unwrap(), 2);
    assert_eq!(client.walk(fid, &[]).unwrap_err(), libc::EBADF);
    assert_eq!(client.clunk(fid).unwrap_err(), libc::EINVAL);
    assert_eq!(
        client.getattr(fid).unwrap_err(),
        libc::EBADF,
        "clunked all the same"
    );
    assert_eq!(client.getxattr(f, "user.x").unwrap_err(), libc::ENODATA);
}
