//! What is copied is the same as before: judged by the system, and by tar.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use cofferdam_copy::{Policy, Root, Target, pack, unpack};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

fn tree(at: &Path) {
    fs::create_dir_all(at.join("d/empty")).unwrap();
    let long = "n".repeat(200);
    fs::write(at.join("d").join(&long), "a long name").unwrap();
    fs::write(
        at.join("d").join(std::ffi::OsStr::from_bytes(b"\xff\xfe")),
        "no text",
    )
    .unwrap();
    fs::write(at.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at.join("run"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::hard_link(at.join("run"), at.join("walk")).unwrap();
    symlink("/nowhere", at.join("link")).unwrap();
    setxattr(at.join("run"), "user.note", b"kept", XattrFlags::empty()).unwrap();
    let mut sparse = File::create(at.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.seek(SeekFrom::Start(32 << 20)).unwrap();
    sparse.write_all(&[7; 5000]).unwrap();
    fs::write(at.join("large"), vec![3; 3 << 20]).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for file in ["run", "d"] {
        File::open(at.join(file)).unwrap().set_modified(old).unwrap();
    }
    fs::set_permissions(at.join("d"), fs::Permissions::from_mode(0o550)).unwrap();
}

/// What a tree looks like to find.
fn listed(at: &Path) -> String {
    let found = Command::new("find")
        .args([".", "-mindepth", "1", "-printf", "%P %y %m %n %s %l %T@\n"])
        .current_dir(at)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    // The size of a directory is its file system's business, the time of a link's change not ours.
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            match fields[1] {
                "d" => [fields[0], fields[1], fields[2], fields[6]].join(" "),
                _ => line.to_owned(),
            }
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

fn packed(from: &Path) -> Vec<u8> {
    let mut stream = Vec::new();
    let root = Root::inside(from).unwrap();
    pack(&root, b"/", false, &mut stream, &mut |note| panic!("{note}")).unwrap();
    stream
}

#[test]
fn a_tree_is_the_same_after_a_copy() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(from.path());
    let stream = packed(from.path());
    assert!(
        stream.len() < 8 << 20,
        "{} bytes: the hole was copied",
        stream.len()
    );
    let root = Root::inside(to.path()).unwrap();
    let target = Target::new(b"/", b"/");
    unpack(stream.as_slice(), &root, &target, &Policy::keep(), &mut |note| {
        panic!("{note}")
    })
    .unwrap();
    assert_eq!(listed(from.path()), listed(to.path()));
    let at = |path: &str| to.path().join(path);
    assert_eq!(
        fs::metadata(at("run")).unwrap().ino(),
        fs::metadata(at("walk")).unwrap().ino()
    );
    let sparse = fs::metadata(at("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "{} blocks", sparse.blocks());
    for file in ["sparse", "large", "run"] {
        assert!(
            fs::read(at(file)).unwrap() == fs::read(from.path().join(file)).unwrap(),
            "{file}"
        );
    }
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(at("run"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"kept");
}

#[test]
fn tar_reads_what_is_written_and_what_it_writes_is_read() {
    let (from, by_tar, back) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    tree(from.path());
    let mut tar = Command::new("tar")
        .args(["xp", "-C"])
        .arg(by_tar.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&packed(from.path())).unwrap();
    assert!(tar.wait().unwrap().success());
    assert_eq!(listed(from.path()), listed(by_tar.path()));

    let archive = Command::new("tar")
        .args(["c", "--sparse", "--format=posix", "-C"])
        .arg(from.path())
        .arg(".")
        .output()
        .unwrap();
    let root = Root::inside(back.path()).unwrap();
    let target = Target::archive(b"/");
    unpack(
        archive.stdout.as_slice(),
        &root,
        &target,
        &Policy::keep(),
        &mut |note| panic!("{note}"),
    )
    .unwrap();
    assert_eq!(listed(from.path()), listed(back.path()));
}

#[test]
fn owners_and_devices_are_kept_only_where_that_is_asked_for() {
    let from = tempfile::tempdir().unwrap();
    let at = |path: &str| from.path().join(path);
    fs::write(at("owned"), "").unwrap();
    std::os::unix::fs::chown(at("owned"), Some(1234), Some(2345)).unwrap();
    fs::set_permissions(at("owned"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("owned", at("link")).unwrap();
    std::os::unix::fs::lchown(at("link"), Some(1234), Some(2345)).unwrap();
    let null = rustix::fs::makedev(1, 3);
    mknodat(
        CWD,
        at("null"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        null,
    )
    .unwrap();
    mknodat(CWD, at("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let stream = packed(from.path());
    let own = rustix::process::geteuid().as_raw();
    for (policy, uid, mode, devices) in [
        (Policy::caller(), own, 0o755, false),
        (Policy::root(), 0, 0o755, false),
        (Policy::keep(), 1234, 0o4755, true),
    ] {
        let to = tempfile::tempdir().unwrap();
        let root = Root::inside(to.path()).unwrap();
        let mut notes = Vec::new();
        let target = Target::new(b"/", b"/");
        unpack(stream.as_slice(), &root, &target, &policy, &mut |note| {
            notes.push(note)
        })
        .unwrap();
        let of = |path: &str| fs::symlink_metadata(to.path().join(path)).unwrap();
        assert_eq!((of("owned").uid(), of("link").uid()), (uid, uid), "{policy:?}");
        assert_eq!(of("owned").mode() & 0o7777, mode, "{policy:?}");
        assert!(of("pipe").file_type().is_fifo());
        assert_eq!(to.path().join("null").exists(), devices, "{policy:?}");
        let said = (!devices).then(|| "./null: it is a device, and left out".to_owned());
        assert_eq!(notes, Vec::from_iter(said));
    }
}

#[test]
fn a_socket_is_left_out_and_said_so() {
    let from = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(from.path().join("socket")).unwrap();
    let (mut stream, mut notes) = (Vec::new(), Vec::new());
    let root = Root::inside(from.path()).unwrap();
    pack(&root, b"/.", false, &mut stream, &mut |note| notes.push(note)).unwrap();
    assert_eq!(notes, ["./socket: it is a socket, and left out"]);
}

/// A file that changes each time some of the archive is taken.
struct Changing<'a> {
    taken: usize,
    change: &'a mut dyn FnMut(),
}

impl std::io::Write for Changing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.taken += bytes.len();
        if self.taken > 300_000 {
            (self.change)();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_while_it_is_copied_is_named() {
    let from = tempfile::tempdir().unwrap();
    let path = from.path().join("log");
    let root = Root::inside(from.path()).unwrap();
    let told = |change: &mut dyn FnMut()| {
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        let output = Changing { taken: 0, change };
        let error = pack(&root, b"/log", false, output, &mut drop).unwrap_err();
        error.to_string()
    };
    let append = || {
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"more").unwrap();
    };
    assert_eq!(
        told(&mut || append()),
        "log: it grew, and is copied as it was at first, while it was copied"
    );
    let cut = || {
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(9)
            .unwrap()
    };
    assert_eq!(told(&mut || cut()), "log: it shrank while it was copied");
}
