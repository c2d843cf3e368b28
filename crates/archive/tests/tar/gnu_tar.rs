//! Archives that GNU tar makes of real files, compared with the files.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, FileTimes},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use cofferdam_archive::{Entry, Kind};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lgetxattr, lsetxattr, makedev, mknodat};

use crate::reading::{content, good};

/// What a format can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    /// No devices and pipes.
    V7,
    /// No long names, no large numbers.
    Ustar,
    /// Everything.
    All,
}

/// Files of every kind that a format holds.
fn tree(root: &Path, holds: Holds) {
    let path = |name: &str| root.join(name);
    fs::create_dir_all(path("directory/empty")).unwrap();
    for size in [0, 1, 511, 512, 513, 100_000] {
        let data: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[0]).collect();
        fs::write(path(&format!("directory/{size}")), data).unwrap();
    }
    fs::set_permissions(path("directory/1"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs::hard_link(path("directory/513"), path("again")).unwrap();
    symlink("../where/nothing is", path("symlink")).unwrap();
    let sparse = File::create(path("sparse")).unwrap();
    for n in 0..60_u64 {
        sparse.write_all_at(&[b's'; 5000], n * 100_000).unwrap();
    }
    sparse.set_len(7_000_000).unwrap();
    let hole = File::create(path("hole")).unwrap();
    hole.set_len(1_000_000).unwrap();
    chown(path("directory/511"), Some(70_000), Some(80_000)).unwrap();
    if holds >= Holds::Ustar {
        mknodat(CWD, path("fifo"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
        mknodat(
            CWD,
            path("null"),
            FileType::CharacterDevice,
            Mode::from(0o666),
            makedev(1, 3),
        )
        .unwrap();
    }
    if holds < Holds::All {
        return;
    }
    let long = format!("directory/{}/{}", "d".repeat(200), "f".repeat(200));
    fs::create_dir_all(path(&long).parent().unwrap()).unwrap();
    fs::write(path(&long), b"long").unwrap();
    symlink("t".repeat(300), path("long symlink")).unwrap();
    lchown(path("long symlink"), Some(3_000_000_000), Some(4_000_000_000)).unwrap();
    fs::hard_link(path(&long), path("long again")).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"bytes \xff\n")), b"odd").unwrap();
    let before = SystemTime::UNIX_EPOCH - Duration::from_nanos(1_250_000_001);
    File::open(path("directory/0"))
        .unwrap()
        .set_times(FileTimes::new().set_modified(before))
        .unwrap();
}

fn make(root: &Path, arguments: &[&str]) -> Vec<(Entry, Vec<u8>)> {
    let output = Command::new("tar")
        .args(["--create", "--numeric-owner", "--directory"])
        .arg(root)
        .args(arguments)
        .arg(".")
        .output()
        .expect("GNU tar is needed for this test");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tar {arguments:?}: {said}");
    good(&output.stdout)
}

/// What is in the directory, but for hard links' targets: which name is the first is up to the directory's order.
fn compare(root: &Path, entries: &[(Entry, Vec<u8>)], nanoseconds: bool, xattrs: &[&str]) {
    let mut left: BTreeMap<PathBuf, ()> = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                directories.push(path.clone());
            }
            left.insert(path, ());
        }
    }
    let mut links = 0;
    for (entry, data) in entries {
        let name = Path::new(OsStr::from_bytes(&entry.path));
        // A path is the file's without `./` and a directory's slash.
        let path: PathBuf = root.join(name).components().collect();
        let is_root = path == root;
        assert!(
            left.remove(&path).is_some() || is_root,
            "{name:?} is not in the directory, or twice"
        );
        let real = path.symlink_metadata().unwrap();
        let file_type = real.file_type();
        match &entry.kind {
            Kind::File { .. } => {
                assert!(file_type.is_file(), "{name:?}");
                assert!(
                    content(&(entry.clone(), data.clone())) == fs::read(&path).unwrap(),
                    "{name:?}"
                );
            }
            Kind::HardLink { target } => {
                links += 1;
                let target = root.join(OsStr::from_bytes(target)).symlink_metadata().unwrap();
                assert_eq!((target.dev(), target.ino()), (real.dev(), real.ino()), "{name:?}");
            }
            Kind::Symlink { target } => {
                assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), target);
            }
            Kind::Directory => assert!(file_type.is_dir(), "{name:?}"),
            Kind::CharacterDevice { major, minor } => {
                assert!(file_type.is_char_device());
                assert_eq!(makedev(*major, *minor), real.rdev());
            }
            Kind::BlockDevice { .. } => panic!("{name:?} is none"),
            Kind::Fifo => assert!(file_type.is_fifo(), "{name:?}"),
        }
        assert_eq!(
            (entry.mode, entry.uid, entry.gid),
            (real.mode() & 0o7777, real.uid(), real.gid()),
            "{name:?}"
        );
        assert_eq!(entry.mtime.seconds, real.mtime(), "{name:?}");
        if nanoseconds {
            assert_eq!(i64::from(entry.mtime.nanoseconds), real.mtime_nsec(), "{name:?}");
        }
        for xattr in &entry.xattrs {
            let mut value = [0; 4096];
            let length = lgetxattr(&path, OsStr::from_bytes(&xattr.name), &mut value).unwrap();
            assert_eq!(xattr.value, value[..length], "{name:?}");
        }
        if !file_type.is_symlink() && !matches!(entry.kind, Kind::HardLink { .. }) {
            for wanted in xattrs {
                let there = lgetxattr(&path, *wanted, &mut [0; 4096]).is_ok();
                let found = entry.xattrs.iter().any(|xattr| xattr.name == wanted.as_bytes());
                assert_eq!(there, found, "{wanted} of {name:?}");
            }
        }
    }
    assert_eq!(
        left.keys().collect::<Vec<_>>(),
        Vec::<&PathBuf>::new(),
        "missing from the archive"
    );
    assert!(links > 0);
}

fn is_sparse(entries: &[(Entry, Vec<u8>)], name: &str) -> bool {
    let entry = entries.iter().find(|(entry, _)| entry.path == name.as_bytes());
    matches!(
        entry.unwrap().0.kind,
        Kind::File {
            segments: Some(_),
            ..
        }
    )
}

#[test]
fn old_formats_hold_what_they_can() {
    for (format, holds) in [("--format=v7", Holds::V7), ("--format=ustar", Holds::Ustar)] {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path(), holds);
        compare(dir.path(), &make(dir.path(), &[format]), false, &[]);
    }
}

#[test]
fn the_gnu_format_holds_everything_but_fractions_of_seconds() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path(), Holds::All);
    let entries = make(dir.path(), &["--format=gnu"]);
    compare(dir.path(), &entries, false, &[]);
    assert!(!is_sparse(&entries, "./sparse"));
    let entries = make(dir.path(), &["--format=gnu", "--sparse"]);
    compare(dir.path(), &entries, false, &[]);
    assert!(is_sparse(&entries, "./sparse") && is_sparse(&entries, "./hole"));
}

#[test]
fn the_pax_format_holds_everything_with_attributes_and_each_kind_of_sparse_file() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path(), Holds::All);
    let xattrs = ["user.a=b%", "user.bytes", "user.empty"];
    for (name, value) in xattrs.iter().zip([&b"1"[..], b"\0\n=\xff", b""]) {
        for file in ["directory/1", "directory/empty", "sparse"] {
            lsetxattr(dir.path().join(file), *name, value, XattrFlags::CREATE).unwrap();
        }
    }
    // A capability: cap_net_bind_service, permitted and effective.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    lsetxattr(
        dir.path().join("directory/511"),
        "security.capability",
        &capability,
        XattrFlags::CREATE,
    )
    .unwrap();
    let xattrs = [&xattrs[..], &["security.capability"]].concat();
    for version in ["0.0", "0.1", "1.0"] {
        let version = format!("--sparse-version={version}");
        let options = [
            "--format=pax",
            "--sparse",
            &version,
            "--xattrs",
            "--xattrs-include=*",
        ];
        let entries = make(dir.path(), &options);
        compare(dir.path(), &entries, true, &xattrs);
        assert!(
            is_sparse(&entries, "./sparse") && is_sparse(&entries, "./hole"),
            "{version}"
        );
    }
}
