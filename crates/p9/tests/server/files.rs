//! What files hold, and their names.

use std::os::unix::fs::MetadataExt;

use cofferdam_p9::wire::{OpenFlags, QidType, SetattrMask};

use crate::{client::Change, rig::Rig};

const RW: OpenFlags = OpenFlags::READ_WRITE;

#[test]
fn what_is_written_is_read_back_at_every_offset() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    let f = client.create(root, "f", RW, 0o644, 0).unwrap();
    assert_eq!(client.write(f, 0, b"hello").unwrap(), 5);
    assert_eq!(client.write(f, 10, b"world").unwrap(), 5);
    assert_eq!(client.read(f, 0, 100).unwrap(), b"hello\0\0\0\0\0world");
    assert_eq!(client.read(f, 12, 2).unwrap(), b"rl");
    assert_eq!(client.read(f, 15, 100).unwrap(), b"");
    assert_eq!(client.read(f, u64::MAX, 100).unwrap_err(), libc::EINVAL);
    client.fsync(f).unwrap();
    assert_eq!(std::fs::read(rig.path("f")).unwrap(), b"hello\0\0\0\0\0world");
}

#[test]
fn open_flags_mean_what_their_9p_numbers_say() {
    let rig = Rig::new();
    std::fs::write(rig.path("f"), "content").unwrap();
    let (mut client, root) = rig.attached();

    let append = client
        .open_at(root, &["f"], OpenFlags::WRITE_ONLY | OpenFlags::APPEND)
        .unwrap();
    client.write(append, 0, b"+").unwrap();
    assert_eq!(std::fs::read(rig.path("f")).unwrap(), b"content+");
    assert_eq!(client.read(append, 0, 1).unwrap_err(), libc::EBADF);

    let direct = client.open_at(root, &["f"], RW | OpenFlags::DIRECT).unwrap();
    assert_eq!(
        client.read(direct, 3, 3).unwrap(),
        b"ten",
        "unaligned, as no O_DIRECT of the host would allow"
    );
    client.open_at(root, &["f"], RW | OpenFlags::SYNC).unwrap();
    client.open_at(root, &["f"], OpenFlags::NO_ACCESS_TIME).unwrap();

    client
        .open_at(root, &["f"], OpenFlags::WRITE_ONLY | OpenFlags::TRUNCATE)
        .unwrap();
    assert_eq!(std::fs::read(rig.path("f")).unwrap(), b"");
    assert_eq!(
        client.open_at(root, &["f"], OpenFlags::DIRECTORY).unwrap_err(),
        libc::ENOTDIR
    );
    assert_eq!(client.open_at(root, &[], RW).unwrap_err(), libc::EISDIR);

    let exclusive = RW | OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
    assert_eq!(
        client.create(root, "f", exclusive, 0o600, 0).unwrap_err(),
        libc::EEXIST
    );
    client.create(root, "g", exclusive, 0o600, 0).unwrap();
    std::fs::write(rig.path("g"), "kept").unwrap();
    let existing = client
        .create(root, "g", RW | OpenFlags::CREATE, 0o600, 0)
        .unwrap();
    assert_eq!(client.read(existing, 0, 10).unwrap(), b"kept");
    client
        .create(root, "g", RW | OpenFlags::TRUNCATE, 0o600, 0)
        .unwrap();
    assert_eq!(std::fs::read(rig.path("g")).unwrap(), b"");
}

#[test]
fn a_fid_is_opened_once_and_only_then_read() {
    let rig = Rig::new();
    std::fs::write(rig.path("f"), "x").unwrap();
    let (mut client, root) = rig.attached();
    let f = client.walk(root, &["f"]).unwrap();
    assert_eq!(client.read(f, 0, 1).unwrap_err(), libc::EBADF);
    assert_eq!(client.write(f, 0, b"y").unwrap_err(), libc::EBADF);
    assert_eq!(client.readdir(f, 0, 1000).unwrap_err(), libc::EBADF);
    client.open(f, RW).unwrap();
    assert_eq!(client.open(f, RW).unwrap_err(), libc::EBADF);
    assert_eq!(client.readdir(f, 0, 1000).unwrap_err(), libc::ENOTDIR);
    let dir = client.open_at(root, &[], OpenFlags::empty()).unwrap();
    assert_eq!(client.read(dir, 0, 1).unwrap_err(), libc::EISDIR);
    client.clunk(f).unwrap();
    assert_eq!(client.read(f, 0, 1).unwrap_err(), libc::EBADF);
    assert_eq!(client.clunk(f).unwrap_err(), libc::EBADF);
}

#[test]
fn an_unlinked_file_works_while_it_is_open() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    let f = client.create(root, "f", RW, 0o644, 0).unwrap();
    let unopened = client.walk(root, &["f"]).unwrap();
    client.unlinkat(root, "f", 0).unwrap();
    assert_eq!(client.write(f, 0, b"still here").unwrap(), 10);
    assert_eq!(client.read(f, 6, 10).unwrap(), b"here");
    let attributes = client.getattr(f).unwrap();
    assert_eq!((attributes.nlink, attributes.size), (0, 10));
    let change = Change {
        valid: SetattrMask::SIZE | SetattrMask::MODE,
        size: 5,
        mode: 0o600,
        ..Default::default()
    };
    client.setattr(f, change).unwrap();
    assert_eq!(client.getattr(unopened).unwrap().size, 5);
    client.open(unopened, RW).unwrap();
    assert_eq!(client.read(unopened, 0, 100).unwrap(), b"still");
    client.setxattr(f, "user.x", b"1", 0).unwrap();
    client.fsync(f).unwrap();
    assert!(!rig.path("f").exists());
}

#[test]
fn cutting_works_through_any_fid() {
    let rig = Rig::new();
    std::fs::write(rig.path("f"), "0123456789").unwrap();
    let (mut client, root) = rig.attached();
    let cut = |size| Change {
        valid: SetattrMask::SIZE,
        size,
        ..Default::default()
    };
    let closed = client.walk(root, &["f"]).unwrap();
    client.setattr(closed, cut(8)).unwrap();
    let reading = client.open_at(root, &["f"], OpenFlags::empty()).unwrap();
    client.setattr(reading, cut(6)).unwrap();
    let writing = client.open_at(root, &["f"], OpenFlags::WRITE_ONLY).unwrap();
    client.setattr(writing, cut(4)).unwrap();
    assert_eq!(std::fs::read(rig.path("f")).unwrap(), b"0123");
    client.setattr(closed, cut(6)).unwrap();
    assert_eq!(std::fs::read(rig.path("f")).unwrap(), b"0123\0\0");
    assert_eq!(client.setattr(root, cut(0)).unwrap_err(), libc::EISDIR);
    assert_eq!(client.setattr(closed, cut(u64::MAX)).unwrap_err(), libc::EFBIG);
}

#[test]
fn renaming_replaces_and_fids_stay_valid() {
    let rig = Rig::new();
    std::fs::create_dir_all(rig.path("old/sub")).unwrap();
    std::fs::write(rig.path("old/sub/f"), "inside").unwrap();
    std::fs::write(rig.path("a"), "a").unwrap();
    std::fs::write(rig.path("b"), "b").unwrap();
    let (mut client, root) = rig.attached();
    client.renameat(root, "a", root, "b").unwrap();
    assert_eq!(std::fs::read(rig.path("b")).unwrap(), b"a");

    let f = client
        .open_at(root, &["old", "sub", "f"], OpenFlags::empty())
        .unwrap();
    let sub = client.walk(root, &["old", "sub"]).unwrap();
    client.renameat(root, "old", root, "new").unwrap();
    assert_eq!(client.read(f, 0, 10).unwrap(), b"inside");
    client.walk(sub, &["f"]).unwrap();
    client.mkdir(sub, "made", 0o755, 0).unwrap();
    assert!(rig.path("new/sub/made").exists());
    let up = client.walk(sub, &["..", "..", "b"]).unwrap();
    assert_eq!(client.getattr(up).unwrap().size, 1);

    client.rename(sub, root, "moved").unwrap();
    assert!(rig.path("moved/f").exists());
    assert_eq!(
        client.renameat(root, "new", root, "moved").unwrap_err(),
        libc::ENOTEMPTY
    );
    assert_eq!(
        client.renameat(root, "b", root, "moved").unwrap_err(),
        libc::EISDIR
    );
    assert_eq!(
        client.renameat(root, "absent", root, "x").unwrap_err(),
        libc::ENOENT
    );
    let moved = client.walk(root, &["moved"]).unwrap();
    assert_eq!(
        client.renameat(root, "moved", moved, "x").unwrap_err(),
        libc::EINVAL
    );
    assert_eq!(client.rename(root, moved, "x").unwrap_err(), libc::EBUSY);
}

#[test]
fn hard_links_are_one_file() {
    let rig = Rig::new();
    std::fs::write(rig.path("f"), "x").unwrap();
    std::os::unix::fs::symlink("f", rig.path("s")).unwrap();
    let (mut client, root) = rig.attached();
    let f = client.walk(root, &["f"]).unwrap();
    client.link(root, f, "g").unwrap();
    let g = client.walk(root, &["g"]).unwrap();
    let (f, g) = (client.getattr(f).unwrap(), client.getattr(g).unwrap());
    assert_eq!((f.qid, f.nlink), (g.qid, 2));
    let s = client.walk(root, &["s"]).unwrap();
    client.link(root, s, "t").unwrap();
    let t = client.walk(root, &["t"]).unwrap();
    assert_eq!(
        client.getattr(t).unwrap().qid.kind,
        QidType::SYMLINK,
        "the link itself, not its target"
    );
    assert_eq!(client.link(root, root, "d").unwrap_err(), libc::EPERM);
    let fid = client.walk(root, &["f"]).unwrap();
    assert_eq!(client.link(root, fid, "g").unwrap_err(), libc::EEXIST);
}

#[test]
fn removal_tells_files_from_directories() {
    let rig = Rig::new();
    std::fs::create_dir_all(rig.path("d/e")).unwrap();
    std::fs::write(rig.path("f"), "").unwrap();
    std::fs::write(rig.path("g"), "").unwrap();
    let (mut client, root) = rig.attached();
    assert_eq!(client.unlinkat(root, "d", 0).unwrap_err(), libc::EISDIR);
    assert_eq!(client.unlinkat(root, "d", 0x200).unwrap_err(), libc::ENOTEMPTY);
    assert_eq!(client.unlinkat(root, "f", 0x200).unwrap_err(), libc::ENOTDIR);
    assert_eq!(client.unlinkat(root, "f", 0x100).unwrap_err(), libc::EINVAL);
    client.unlinkat(root, "f", 0).unwrap();
    let (e, g) = (
        client.walk(root, &["d", "e"]).unwrap(),
        client.walk(root, &["g"]).unwrap(),
    );
    client.remove(e).unwrap();
    client.remove(g).unwrap();
    client.unlinkat(root, "d", 0x200).unwrap();
    assert_eq!(client.names(root), [".", ".."]);
    let busy = client.walk(root, &[]).unwrap();
    assert_eq!(client.remove(busy).unwrap_err(), libc::EBUSY, "the root itself");
}

#[test]
fn a_symbolic_link_keeps_its_target_byte_for_byte() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    let target = "/no/such/../place é\n";
    assert_eq!(
        client.symlink(root, "s", target, 0).unwrap().kind,
        QidType::SYMLINK
    );
    let s = client.walk(root, &["s"]).unwrap();
    assert_eq!(client.readlink(s).unwrap(), target.as_bytes());
    assert_eq!(client.readlink(root).unwrap_err(), libc::EINVAL);
    assert_eq!(client.symlink(root, "s", "t", 0).unwrap_err(), libc::EEXIST);
}

#[test]
fn a_qids_version_changes_with_the_file_and_its_path_does_not() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    let f = client.create(root, "f", RW, 0o644, 0).unwrap();
    let before = client.getattr(f).unwrap().qid;
    assert_eq!(before.path, std::fs::metadata(rig.path("f")).unwrap().ino());
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(rig.path("f"), "by the host").unwrap();
    let after = client.getattr(f).unwrap().qid;
    assert_eq!(after.path, before.path);
    assert_ne!(after.version, before.version);
}

#[test]
fn a_walk_of_which_a_later_name_is_absent_makes_no_fid() {
    let rig = Rig::new();
    std::fs::create_dir_all(rig.path("a/b")).unwrap();
    let (mut client, root) = rig.attached();
    let (newfid, qids) = client.walk_qids(root, &[b"a", b"b", b"c", b"d"]).unwrap();
    assert_eq!(qids.len(), 2);
    assert_eq!(client.getattr(newfid).unwrap_err(), libc::EBADF);
    assert_eq!(client.walk_qids(root, &[b"x", b"b"]).unwrap_err(), libc::ENOENT);
}
