//! Read-only exports and exports restricted to some names.

use std::os::unix::fs::symlink;

use cofferdam_p9::{
    Export, P9Error,
    wire::{OpenFlags, SetattrMask},
};

use crate::{client::Change, rig::Rig};

#[test]
fn a_read_only_export_refuses_every_change() {
    let rig = Rig::without_exports(Default::default());
    std::fs::create_dir(rig.path("d")).unwrap();
    std::fs::write(rig.path("f"), "content").unwrap();
    rig.export("ro", true, None);
    let (mut client, root) = rig.attached_to("ro");
    let f = client.walk(root, &["f"]).unwrap();
    let d = client.walk(root, &["d"]).unwrap();
    let mut errors = vec![
        client.mkdir(root, "x", 0o700, 0).unwrap_err(),
        client.symlink(d, "x", "t", 0).unwrap_err(),
        client
            .mknod(root, "x", libc::S_IFREG | 0o600, (0, 0))
            .unwrap_err(),
        client.create(d, "x", OpenFlags::empty(), 0o600, 0).unwrap_err(),
        client.link(root, f, "x").unwrap_err(),
        client.rename(f, root, "x").unwrap_err(),
        client.renameat(root, "f", root, "x").unwrap_err(),
        client.unlinkat(root, "f", 0).unwrap_err(),
        client.unlinkat(root, "d", 0x200).unwrap_err(),
        client.setxattr(f, "user.x", b"1", 0).unwrap_err(),
    ];
    for valid in [
        SetattrMask::MODE,
        SetattrMask::UID,
        SetattrMask::SIZE,
        SetattrMask::MTIME,
    ] {
        errors.push(
            client
                .setattr(
                    f,
                    Change {
                        valid,
                        ..Default::default()
                    },
                )
                .unwrap_err(),
        );
    }
    for flags in [OpenFlags::WRITE_ONLY, OpenFlags::READ_WRITE, OpenFlags::TRUNCATE] {
        errors.push(client.open_at(root, &["f"], flags).unwrap_err());
    }
    assert_eq!(errors, vec![libc::EROFS; 17]);
    let open = client.open_at(root, &["f"], OpenFlags::empty()).unwrap();
    assert_eq!(client.read(open, 0, 100).unwrap(), b"content");
    assert_eq!(client.write(open, 0, b"x").unwrap_err(), libc::EBADF);
    let doomed = client.walk(root, &["f"]).unwrap();
    assert_eq!(client.remove(doomed).unwrap_err(), libc::EROFS);
    assert_eq!(
        client.getattr(doomed).unwrap_err(),
        libc::EBADF,
        "Tremove clunks even when it fails"
    );
    assert_eq!(std::fs::read(rig.path("f")).unwrap(), b"content");
}

fn restricted() -> Rig {
    let rig = Rig::without_exports(Default::default());
    std::fs::write(rig.path("hosts"), "1").unwrap();
    std::fs::write(rig.path("other"), "secret").unwrap();
    std::fs::create_dir_all(rig.path("tree/sub")).unwrap();
    std::fs::create_dir(rig.path("hidden")).unwrap();
    symlink("other", rig.path("link")).unwrap();
    rig.export("some", false, Some(&["hosts", "tree", "absent", "link"]));
    rig
}

#[test]
fn a_restricted_export_shows_only_its_names() {
    let rig = restricted();
    let (mut client, root) = rig.attached_to("some");
    assert_eq!(client.names(root), [".", "..", "hosts", "link", "tree"]);
    for name in ["other", "hidden", "absent"] {
        assert_eq!(client.walk(root, &[name]).unwrap_err(), libc::ENOENT, "{name}");
    }
    client.walk(root, &["tree", "sub", "..", "..", "hosts"]).unwrap();
    assert_eq!(
        client.walk(root, &["tree", "..", "other"]).unwrap_err(),
        libc::ENOENT
    );
    let link = client.walk(root, &["link"]).unwrap();
    assert_eq!(client.readlink(link).unwrap(), b"other");
}

#[test]
fn a_restricted_listing_goes_on_at_each_of_its_offsets() {
    let rig = restricted();
    let (mut client, root) = rig.attached_to("some");
    let dir = client.open_at(root, &[], OpenFlags::DIRECTORY).unwrap();
    let all = client.list(dir).unwrap();
    for (index, entry) in all.iter().enumerate() {
        assert_eq!(
            client.readdir(dir, entry.offset, 4096).unwrap(),
            all[index + 1..],
            "after {entry:?}"
        );
    }
    // Room for one entry at a time.
    let mut offset = 0;
    for entry in &all {
        let one = client.readdir(dir, offset, 24 + entry.name.len() as u32).unwrap();
        assert_eq!(one[0], *entry);
        offset = entry.offset;
    }
    assert_eq!(client.readdir(dir, u64::MAX, 4096).unwrap(), []);
}

#[test]
fn nothing_in_a_restricted_directory_itself_can_change() {
    let rig = restricted();
    let (mut client, root) = rig.attached_to("some");
    let tree = client.walk(root, &["tree"]).unwrap();
    let hosts = client.walk(root, &["hosts"]).unwrap();
    let errors = [
        client.mkdir(root, "absent", 0o700, 0).unwrap_err(),
        client.symlink(root, "absent", "t", 0).unwrap_err(),
        client
            .mknod(root, "absent", libc::S_IFREG | 0o600, (0, 0))
            .unwrap_err(),
        client
            .create(root, "absent", OpenFlags::READ_WRITE, 0o600, 0)
            .unwrap_err(),
        client
            .create(root, "hosts", OpenFlags::READ_WRITE, 0o600, 0)
            .unwrap_err(),
        client
            .create(root, "other", OpenFlags::READ_WRITE, 0o600, 0)
            .unwrap_err(),
        client.link(root, hosts, "absent").unwrap_err(),
        client.rename(hosts, tree, "x").unwrap_err(),
        client.renameat(root, "hosts", tree, "x").unwrap_err(),
        client.renameat(root, "other", tree, "x").unwrap_err(),
        client.renameat(tree, "sub", root, "hosts").unwrap_err(),
        client.unlinkat(root, "hosts", 0).unwrap_err(),
        client.unlinkat(root, "other", 0).unwrap_err(),
        client.unlinkat(root, "tree", 0x200).unwrap_err(),
        client.remove(hosts).unwrap_err(),
        client
            .setattr(
                root,
                Change {
                    valid: SetattrMask::MODE,
                    mode: 0o777,
                    ..Default::default()
                },
            )
            .unwrap_err(),
        client.setxattr(root, "user.x", b"1", 0).unwrap_err(),
    ];
    assert_eq!(errors, [libc::EPERM; 17]);
    // Where the tree is entered from below, its root is still the restricted one.
    let up = client.walk(tree, &[".."]).unwrap();
    assert_eq!(client.mkdir(up, "absent", 0o700, 0).unwrap_err(), libc::EPERM);
}

#[test]
fn an_allowed_file_can_be_written_and_an_allowed_tree_changed() {
    let rig = restricted();
    let (mut client, root) = rig.attached_to("some");
    let hosts = client.open_at(root, &["hosts"], OpenFlags::READ_WRITE).unwrap();
    assert_eq!(client.write(hosts, 1, b"2").unwrap(), 1);
    client
        .setattr(
            hosts,
            Change {
                valid: SetattrMask::MODE,
                mode: 0o640,
                ..Default::default()
            },
        )
        .unwrap();
    assert_eq!(std::fs::read(rig.path("hosts")).unwrap(), b"12");
    let tree = client.walk(root, &["tree"]).unwrap();
    client.mkdir(tree, "new", 0o755, 0).unwrap();
    client.renameat(tree, "new", tree, "newer").unwrap();
    client.unlinkat(tree, "newer", 0x200).unwrap();
}

#[test]
fn an_allowed_file_replaced_on_the_host_is_found_anew() {
    let rig = restricted();
    let (mut client, root) = rig.attached_to("some");
    let old = client.open_at(root, &["hosts"], OpenFlags::empty()).unwrap();
    std::fs::write(rig.path("new"), "replaced").unwrap();
    std::fs::rename(rig.path("new"), rig.path("hosts")).unwrap();
    let new = client.open_at(root, &["hosts"], OpenFlags::empty()).unwrap();
    assert_eq!(client.read(new, 0, 100).unwrap(), b"replaced");
    assert_eq!(
        client.read(old, 0, 100).unwrap(),
        b"1",
        "what is open stays what it was"
    );
    std::fs::remove_file(rig.path("hosts")).unwrap();
    assert_eq!(client.walk(root, &["hosts"]).unwrap_err(), libc::ENOENT);
}

#[test]
fn a_directory_moved_beside_the_allowed_names_has_no_way_up() {
    let rig = restricted();
    let (mut client, root) = rig.attached_to("some");
    let sub = client.walk(root, &["tree", "sub"]).unwrap();
    std::fs::rename(rig.path("tree/sub"), rig.path("hidden/sub")).unwrap();
    assert_eq!(client.walk(sub, &[".."]).unwrap_err(), libc::ESTALE);
}

#[test]
fn one_exports_files_get_no_names_in_another() {
    let rig = restricted();
    rig.export("share", false, None);
    let (mut client, open_root) = rig.attached_to("share");
    let some_root = client.attach("some");
    let tree = client.walk(some_root, &["tree"]).unwrap();
    let other = client.walk(open_root, &["other"]).unwrap();
    assert_eq!(client.link(tree, other, "x").unwrap_err(), libc::EXDEV);
    assert_eq!(client.rename(other, tree, "x").unwrap_err(), libc::EXDEV);
    assert_eq!(
        client.renameat(open_root, "other", tree, "x").unwrap_err(),
        libc::EXDEV
    );
}

#[test]
fn exports_are_checked_when_they_are_added() {
    let rig = Rig::new();
    let export = |path: &str, names| Export {
        path: path.into(),
        read_only: false,
        allowed_names: names,
    };
    let add = |name: &str, export| rig.exports.add(name.into(), export);
    assert!(
        matches!(add("share", export("/", None)), Err(P9Error::DuplicateExport(name)) if name == "share")
    );
    assert!(matches!(
        add("x", export("/nowhere", None)),
        Err(P9Error::OpenExport { .. })
    ));
    std::fs::write(rig.path("f"), "").unwrap();
    let file = rig.path("f");
    assert!(matches!(
        add("x", export(file.to_str().unwrap(), None)),
        Err(P9Error::OpenExport { .. })
    ));
    for bad in ["", ".", "..", "a/b"] {
        let names = Some(vec![bad.into()]);
        assert!(
            matches!(add("x", export("/", names)), Err(P9Error::BadAllowedName(_))),
            "{bad:?}"
        );
    }
    assert_eq!(rig.exports.names(), ["share"]);
    let mut client = rig.connect();
    assert_eq!(client.attach_as("x", 0).unwrap_err(), libc::ENOENT);
}

#[test]
fn an_export_whose_directory_is_renamed_stays_what_it_was() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("a")).unwrap();
    let rig = Rig::without_exports(Default::default());
    let export = Export {
        path: base.path().join("a"),
        read_only: false,
        allowed_names: None,
    };
    rig.exports.add("a".into(), export).unwrap();
    std::fs::rename(base.path().join("a"), base.path().join("b")).unwrap();
    std::fs::create_dir(base.path().join("a")).unwrap();
    let (mut client, root) = rig.attached_to("a");
    client.mkdir(root, "x", 0o755, 0).unwrap();
    client.walk(root, &["x", "..", "x"]).unwrap();
    assert!(base.path().join("b/x").exists());
}
