//! No way out of an export.

use std::{
    os::unix::fs::symlink,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cofferdam_p9::wire::{OpenFlags, QidType};

use crate::rig::Rig;

#[test]
fn dot_dot_at_the_root_stays_there() {
    let rig = Rig::new();
    std::fs::create_dir_all(rig.path("a/b")).unwrap();
    let (mut client, root) = rig.attached();
    let (_, qids) = client
        .walk_qids(root, &[b"..", b"..", b"a", b"b", b"..", b"..", b"..", b".."])
        .unwrap();
    let root_path = client.getattr(root).unwrap().qid.path;
    assert_eq!(qids.len(), 8);
    for index in [0, 1, 5, 6, 7] {
        assert_eq!(qids[index].path, root_path, "step {index}");
    }
    assert_eq!(qids[2].path, qids[4].path);
}

#[test]
fn names_that_are_paths_are_refused_everywhere() {
    let rig = Rig::new();
    std::fs::create_dir(rig.path("a")).unwrap();
    std::fs::write(rig.path("f"), "").unwrap();
    let (mut client, root) = rig.attached();
    for name in ["", ".", "/", "/etc", "a/..", "../..", "a/b", "..\0", "\0"] {
        assert_eq!(
            client.walk(root, &[name]).unwrap_err(),
            libc::EINVAL,
            "walk {name:?}"
        );
    }
    for name in ["", ".", "..", "/etc/x", "../x", "a/../../x", "x\0y"] {
        let f = client.walk(root, &["f"]).unwrap();
        let errors = [
            client.mkdir(root, name, 0o700, 0).unwrap_err(),
            client.symlink(root, name, "t", 0).unwrap_err(),
            client
                .mknod(root, name, libc::S_IFREG | 0o600, (0, 0))
                .unwrap_err(),
            client
                .create(root, name, OpenFlags::READ_WRITE, 0o600, 0)
                .unwrap_err(),
            client.link(root, f, name).unwrap_err(),
            client.rename(f, root, name).unwrap_err(),
            client.renameat(root, "f", root, name).unwrap_err(),
            client.renameat(root, name, root, "g").unwrap_err(),
            client.unlinkat(root, name, 0).unwrap_err(),
            client.unlinkat(root, name, 0x200).unwrap_err(),
        ];
        assert_eq!(errors, [libc::EINVAL; 10], "{name:?}");
    }
}

#[test]
fn a_symbolic_link_is_shown_and_never_followed() {
    let rig = Rig::new();
    symlink("/etc", rig.path("etc")).unwrap();
    symlink("/etc/passwd", rig.path("passwd")).unwrap();
    let (mut client, root) = rig.attached();
    let (link, qids) = client.walk_qids(root, &[b"etc"]).unwrap();
    assert_eq!(qids[0].kind, QidType::SYMLINK);
    assert_eq!(client.readlink(link).unwrap(), b"/etc");
    assert_eq!(client.open(link, OpenFlags::empty()).unwrap_err(), libc::ELOOP);
    assert_eq!(client.walk(root, &["etc", "passwd"]).unwrap_err(), libc::ENOENT);
    assert_eq!(client.walk(link, &["passwd"]).unwrap_err(), libc::ENOTDIR);
    assert_eq!(client.walk(link, &[".."]).unwrap_err(), libc::ENOTDIR);
    assert_eq!(client.mkdir(link, "x", 0o700, 0).unwrap_err(), libc::ENOTDIR);
    assert_eq!(client.unlinkat(link, "passwd", 0).unwrap_err(), libc::ENOTDIR);
    let mode = libc::S_IFLNK | 0o777;
    assert_eq!(client.getattr(link).unwrap().mode, mode);
    // Creating over a link does not create, or write, what it points to.
    let error = client
        .create(root, "passwd", OpenFlags::READ_WRITE, 0o600, 0)
        .unwrap_err();
    assert_eq!(error, libc::ELOOP);
    symlink(rig.path("outside"), rig.path("dangling")).unwrap();
    assert_eq!(
        client
            .create(root, "dangling", OpenFlags::READ_WRITE, 0o600, 0)
            .unwrap_err(),
        libc::ELOOP
    );
    assert!(!rig.path("outside").exists());
}

#[test]
fn setting_attributes_of_a_link_leaves_its_target_alone() {
    use std::os::unix::fs::MetadataExt;
    let rig = Rig::new();
    let outside = tempfile::NamedTempFile::new().unwrap();
    let before = outside.path().metadata().unwrap();
    symlink(outside.path(), rig.path("link")).unwrap();
    let (mut client, root) = rig.attached();
    let link = client.walk(root, &["link"]).unwrap();
    let set = |valid| crate::client::Change {
        valid,
        mode: 0o777,
        uid: 77,
        gid: 78,
        mtime: (5, 0),
        ..Default::default()
    };
    use cofferdam_p9::wire::SetattrMask as Mask;
    assert_eq!(
        client.setattr(link, set(Mask::MODE)).unwrap_err(),
        libc::EOPNOTSUPP
    );
    assert_eq!(client.setattr(link, set(Mask::SIZE)).unwrap_err(), libc::EINVAL);
    client.setattr(link, set(Mask::MTIME | Mask::MTIME_SET)).unwrap();
    let chown = client.setattr(link, set(Mask::UID | Mask::GID));
    assert_eq!(
        chown,
        if crate::rig::is_root() {
            Ok(())
        } else {
            Err(libc::EPERM)
        }
    );
    let _ = client.setxattr(link, "trusted.x", b"1", 0);
    let _ = client.setxattr(link, "user.x", b"1", 0);
    let after = outside.path().metadata().unwrap();
    assert_eq!(
        (after.mode(), after.uid(), after.mtime()),
        (before.mode(), before.uid(), before.mtime())
    );
    let mut names = [0; 100];
    assert_eq!(rustix::fs::listxattr(outside.path(), &mut names[..]).unwrap(), 0);
    assert_eq!(std::fs::symlink_metadata(rig.path("link")).unwrap().mtime(), 5);
}

#[test]
fn magic_links_of_proc_are_links_like_others() {
    let rig = Rig::without_exports(Default::default());
    let export = cofferdam_p9::Export {
        path: "/proc/self".into(),
        read_only: false,
        allowed_names: None,
    };
    rig.exports.add("proc".into(), export).unwrap();
    let (mut client, root) = rig.attached_to("proc");
    for name in ["root", "cwd", "exe"] {
        let link = client.walk(root, &[name]).unwrap();
        assert_eq!(client.getattr(link).unwrap().qid.kind, QidType::SYMLINK, "{name}");
        assert_eq!(
            client.open(link, OpenFlags::empty()).unwrap_err(),
            libc::ELOOP,
            "{name}"
        );
        assert!(client.walk(link, &["etc"]).is_err());
    }
    assert_eq!(client.walk(root, &["root", "etc"]).unwrap_err(), libc::ENOENT);
}

#[test]
fn a_link_swapped_in_while_walking_leads_nowhere() {
    let rig = Rig::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    std::fs::create_dir(outside.path().join("sub")).unwrap();
    std::fs::create_dir(rig.path("real")).unwrap();
    std::fs::write(rig.path("real/secret"), "inside").unwrap();
    std::fs::create_dir(rig.path("real/sub")).unwrap();
    symlink(outside.path(), rig.path("link")).unwrap();
    std::fs::create_dir(rig.path("dir")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (stop, base) = (Arc::clone(&stop), rig.dir.path().to_path_buf());
        std::thread::spawn(move || {
            // `dir` is by turns the real directory and the link, exchanged in one step.
            std::fs::remove_dir(base.join("dir")).unwrap();
            std::fs::rename(base.join("real"), base.join("dir")).unwrap();
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    base.join("dir"),
                    rustix::fs::CWD,
                    base.join("link"),
                    flags,
                )
                .unwrap();
            }
        })
    };
    let (mut client, root) = rig.attached();
    let until = Instant::now() + Duration::from_millis(1500);
    let (mut inside, mut refused) = (0, 0);
    while Instant::now() < until {
        match client.open_at(root, &["dir", "secret"], OpenFlags::empty()) {
            Ok(fid) => {
                assert_eq!(client.read(fid, 0, 100).unwrap(), b"inside");
                client.clunk(fid).unwrap();
                inside += 1;
            }
            Err(_) => refused += 1,
        }
        if let Ok(fid) = client.walk(root, &["dir", "sub", "..", "..", "..", "dir"]) {
            client.clunk(fid).unwrap();
        }
        let name = format!("new{inside}");
        if let Ok(dir) = client.walk(root, &["dir"]) {
            let _ = client.mkdir(dir, &name, 0o700, 0);
            client.clunk(dir).unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(
        inside > 0 && refused > 0,
        "the race was not run: {inside} inside, {refused} refused"
    );
    assert_eq!(
        std::fs::read_dir(outside.path()).unwrap().count(),
        2,
        "something was created outside"
    );
}

#[test]
fn a_directory_moved_out_of_the_export_has_no_way_up() {
    let rig = Rig::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(rig.path("a/b")).unwrap();
    std::fs::write(outside.path().join("secret"), "").unwrap();
    let (mut client, root) = rig.attached();
    let b = client.walk(root, &["a", "b"]).unwrap();
    std::fs::rename(rig.path("a/b"), outside.path().join("b")).unwrap();
    assert_eq!(client.walk(b, &[".."]).unwrap_err(), libc::ESTALE);
    assert_eq!(client.walk(b, &["..", "secret"]).unwrap_err(), libc::ESTALE);
    assert_eq!(client.rename(b, root, "b").unwrap_err(), libc::ESTALE);
    assert_eq!(client.remove(b).unwrap_err(), libc::ESTALE);
    assert!(outside.path().join("b").exists());
}

#[test]
fn fifos_sockets_and_devices_are_shown_and_never_opened() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    client.mknod(root, "fifo", libc::S_IFIFO | 0o666, (0, 0)).unwrap();
    client
        .mknod(root, "socket", libc::S_IFSOCK | 0o666, (0, 0))
        .unwrap();
    for (name, kind) in [("fifo", libc::S_IFIFO), ("socket", libc::S_IFSOCK)] {
        let fid = client.walk(root, &[name]).unwrap();
        assert_eq!(client.getattr(fid).unwrap().mode, kind | 0o666, "{name}");
        for flags in [OpenFlags::empty(), OpenFlags::WRITE_ONLY, OpenFlags::READ_WRITE] {
            // Would hang for ever if the server opened a FIFO that nobody else has open.
            assert_eq!(client.open(fid, flags).unwrap_err(), libc::ENXIO, "{name}");
        }
        assert_eq!(
            client
                .create(root, name, OpenFlags::WRITE_ONLY, 0o600, 0)
                .unwrap_err(),
            libc::ENXIO
        );
    }
}

#[test]
fn device_nodes_are_not_created_unless_that_is_allowed() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    let null = (1, 3);
    assert_eq!(
        client.mknod(root, "c", libc::S_IFCHR | 0o666, null).unwrap_err(),
        libc::EPERM
    );
    assert_eq!(
        client
            .mknod(root, "b", libc::S_IFBLK | 0o666, (7, 0))
            .unwrap_err(),
        libc::EPERM
    );
    assert_eq!(
        client
            .mknod(root, "d", libc::S_IFDIR | 0o777, (0, 0))
            .unwrap_err(),
        libc::EINVAL
    );
    client.mknod(root, "whiteout", libc::S_IFCHR, (0, 0)).unwrap();

    let options = cofferdam_p9::ServerOptions {
        allow_device_nodes: true,
        ..Default::default()
    };
    let rig = Rig::with(options);
    let (mut client, root) = rig.attached();
    let made = client.mknod(root, "c", libc::S_IFCHR | 0o666, null);
    if !crate::rig::is_root() {
        assert_eq!(made.unwrap_err(), libc::EPERM);
        return;
    }
    let fid = client.walk(root, &["c"]).unwrap();
    let attributes = client.getattr(fid).unwrap();
    assert_eq!((attributes.mode, attributes.rdev), (libc::S_IFCHR | 0o666, 0x103));
    assert_eq!(client.open(fid, OpenFlags::READ_WRITE).unwrap_err(), libc::ENXIO);
}
