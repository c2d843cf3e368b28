//! What image layers have that other archives do not: whiteouts, entries that come twice, links in any order.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use cofferdam_layer::{Filesystem, LayerError};

use crate::{
    archives::{Tar, refusal},
    compare::xattrs,
    mounts::{BOTH, Mounted, make, raw},
};

fn is_whiteout(path: &Path) -> bool {
    let facts = fs::symlink_metadata(path).unwrap();
    facts.file_type().is_char_device() && facts.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    xattrs(path)
        .iter()
        .any(|(name, value)| name == "trusted.overlay.opaque" && value == b"y")
}

#[test]
fn whiteouts_become_those_of_overlay() {
    let archive = Tar::new()
        .dir("etc", 0o755)
        .file("etc/.wh.passwd", b"")
        .dir("var/lib", 0o700)
        .file("var/lib/.wh..wh..opq", b"")
        .file("var/lib/new", b"new")
        .file(".wh..wh.plnk", b"")
        .end();
    for filesystem in BOTH {
        let layer = Mounted::new(&archive, filesystem);
        let root = layer.root();
        assert!(is_whiteout(&root.join("etc/passwd")));
        assert!(is_opaque(&root.join("var/lib")) && !is_opaque(&root.join("etc")));
        assert_eq!(fs::read(root.join("var/lib/new")).unwrap(), b"new");
        assert!(!root.join(".wh..wh.plnk").exists() && !root.join("var/lib/.wh..wh..opq").exists());
    }
}

#[test]
fn a_whiteout_is_for_lower_layers_only_wherever_it_is() {
    let before = Tar::new()
        .file(".wh.f", b"")
        .file(".wh.d", b"")
        .file("f", b"f")
        .dir("d", 0o700)
        .file("d/x", b"x")
        .end();
    let after = Tar::new()
        .file("f", b"f")
        .dir("d", 0o700)
        .file("d/x", b"x")
        .file(".wh.f", b"")
        .file(".wh.d", b"")
        .end();
    let implied = Tar::new()
        .file("f", b"f")
        .file(".wh.d", b"")
        .file("d/x", b"x")
        .end();
    for archive in [before, after, implied] {
        for filesystem in BOTH {
            let layer = Mounted::new(&archive, filesystem);
            assert_eq!(fs::read(layer.root().join("f")).unwrap(), b"f");
            assert_eq!(fs::read(layer.root().join("d/x")).unwrap(), b"x");
            assert!(is_opaque(&layer.root().join("d")));
        }
    }
}

#[test]
fn of_an_entry_that_comes_again_the_last_counts() {
    let large = vec![b'a'; 500_000];
    let archive = Tar::new()
        .file("f", &large)
        .hard_link("other", "f")
        .file("f", b"second")
        .dir("d", 0o700)
        .file("d/kept", b"kept")
        .dir("d", 0o711)
        .dir("becomes-a-file/with/much", 0o755)
        .file("becomes-a-file/with/much/in-it", &large)
        .file("becomes-a-file", b"now")
        .file("becomes-a-directory", &large)
        .dir("becomes-a-directory", 0o755)
        .symlink("s", "f")
        .file("s", b"no link any more")
        .end();
    for filesystem in BOTH {
        let layer = Mounted::new(&archive, filesystem);
        let root = layer.root();
        assert_eq!(fs::read(root.join("f")).unwrap(), b"second");
        assert_eq!(fs::read(root.join("other")).unwrap(), large);
        assert_eq!(fs::metadata(root.join("other")).unwrap().nlink(), 1);
        assert_eq!(fs::metadata(root.join("d")).unwrap().mode() & 0o7777, 0o711);
        assert_eq!(fs::read(root.join("d/kept")).unwrap(), b"kept");
        assert_eq!(fs::read(root.join("becomes-a-file")).unwrap(), b"now");
        assert!(root.join("becomes-a-directory").is_dir());
        assert!(fs::symlink_metadata(root.join("s")).unwrap().is_file());
    }
}

#[test]
fn a_file_that_comes_a_thousand_times_takes_the_room_of_one() {
    let content = vec![b'z'; 100_000];
    let mut archive = Tar::new();
    for _ in 0..1000 {
        archive = archive.file("f", &content);
    }
    let layer = Mounted::new(&archive.end(), Filesystem::Ext4);
    assert!(
        layer.layer.filesystem_bytes < 1_000_000,
        "{}",
        layer.layer.filesystem_bytes
    );
}

#[test]
fn hard_links_find_their_files_before_and_after() {
    let mut archive = Tar::new()
        .hard_link("a", "b")
        .hard_link("b", "c")
        .hard_link("d/e", "c")
        .file("c", b"content");
    for number in 0..100 {
        archive = archive.hard_link(&format!("n{number}"), "d/e");
    }
    let archive = archive.symlink("s", "c").hard_link("also-s", "s").end();
    for filesystem in BOTH {
        let layer = Mounted::new(&archive, filesystem);
        let facts = fs::metadata(layer.root().join("a")).unwrap();
        assert_eq!(facts.nlink(), 104);
        for name in ["b", "c", "d/e", "n0", "n99"] {
            assert_eq!(
                fs::metadata(layer.root().join(name)).unwrap().ino(),
                facts.ino(),
                "{name}"
            );
        }
        assert_eq!(
            fs::symlink_metadata(layer.root().join("also-s")).unwrap().nlink(),
            2
        );
    }
    let lost = refusal(&Tar::new().hard_link("a", "nowhere").end());
    assert!(lost.to_string().contains("a is a hard link to nowhere"), "{lost}");
    let circle = refusal(&Tar::new().hard_link("a", "b").hard_link("b", "a").end());
    assert!(matches!(circle, LayerError::NoTarget { .. }), "{circle}");
    let directory = refusal(&Tar::new().dir("d", 0o755).hard_link("a", "d").end());
    assert!(
        matches!(directory, LayerError::LinkToDirectory { .. }),
        "{directory}"
    );
}

#[test]
fn paths_go_through_symbolic_links_and_never_out() {
    let archive = Tar::new()
        .dir("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .file("lib/a", b"a")
        .symlink("up", "../../../etc")
        .file("up/b", b"b")
        .symlink("abs", "/usr")
        .file("abs/lib/c", b"c")
        .end();
    for filesystem in BOTH {
        let layer = Mounted::new(&archive, filesystem);
        for (name, content) in [("usr/lib/a", b"a"), ("etc/b", b"b"), ("usr/lib/c", b"c")] {
            assert_eq!(fs::read(layer.root().join(name)).unwrap(), content, "{name}");
        }
    }
    for path in ["../escape", "a/../../escape", "/../escape"] {
        let error = refusal(&Tar::new().raw_file(path, b"x").end());
        assert!(matches!(error, LayerError::OutsideRoot { .. }), "{path}: {error}");
        assert!(error.to_string().contains(path), "{error}");
    }
    let circle = refusal(
        &Tar::new()
            .symlink("a", "b")
            .symlink("b", "a")
            .file("a/x", b"")
            .end(),
    );
    assert!(matches!(circle, LayerError::LinkLoop { .. }), "{circle}");
    let file = refusal(&Tar::new().file("f", b"").file("f/x", b"").end());
    assert!(matches!(file, LayerError::NotADirectory { .. }), "{file}");
    for path in [".wh.", ".wh...", "d/.wh.."] {
        let error = refusal(&Tar::new().raw_file(path, b"").end());
        assert!(matches!(error, LayerError::BadWhiteout { .. }), "{path}: {error}");
    }
}

#[test]
fn a_directory_of_100_000_names_is_found_by_its_index() {
    let mut archive = Tar::new();
    for number in 0..100_000 {
        archive = archive.file(&format!("d/name-{number}"), b"");
    }
    let archive = archive.end();
    for filesystem in BOTH {
        let layer = Mounted::new(&archive, filesystem);
        let dir = layer.root().join("d");
        for number in (0..100_000).step_by(997) {
            assert!(dir.join(format!("name-{number}")).exists(), "{number}");
        }
        assert!(!dir.join("name-100000").exists());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 100_000);
    }
}

#[test]
fn a_file_beyond_4_gib_keeps_its_size_and_what_is_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("large")).unwrap();
    let size = (5u64 << 30) + 3;
    file.set_len(size).unwrap();
    for at in [0, (4 << 30) - 5, size - 10] {
        std::os::unix::fs::FileExt::write_all_at(&file, b"0123456789", at).unwrap();
    }
    let archive = dir.path().join("a.tar");
    crate::mounts::run(
        std::process::Command::new("tar")
            .args(["--create", "--sparse", "--file"])
            .arg(&archive)
            .arg("-C")
            .arg(dir.path())
            .arg("large"),
    );
    let archive = fs::read(archive).unwrap();
    for filesystem in BOTH {
        let layer = Mounted::new(&archive, filesystem);
        let file = fs::File::open(layer.root().join("large")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), size);
        for at in [0, (4 << 30) - 5, size - 10] {
            let mut bytes = [0; 10];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, at).unwrap();
            assert_eq!(&bytes, b"0123456789", "at {at}");
        }
    }
}

#[test]
fn an_archive_of_zeros_takes_no_room_on_the_host() {
    let zeros = vec![0; 50_000_000];
    let archive = Tar::new().file("zeros", &zeros).end();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l");
    for filesystem in BOTH {
        let layer = make(&archive, &path, raw(filesystem)).unwrap();
        assert!(layer.file_bytes > 50_000_000);
        let taken = fs::metadata(&path).unwrap().blocks() * 512;
        assert!(taken < 300_000, "{taken}");
    }
    let mounted = Mounted::new(&archive, Filesystem::Ext4);
    assert!(fs::read(mounted.root().join("zeros")).unwrap() == zeros);
}

#[test]
fn the_same_archive_gives_the_same_bytes() {
    let archive = Tar::new()
        .dir("d", 0o755)
        .file("d/f", &[1; 10_000])
        .file(".wh.x", b"")
        .end();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l");
    for filesystem in BOTH {
        let mut options = raw(filesystem);
        options.verity = true;
        options.container = Default::default();
        let bytes = || {
            make(&archive, &path, options).unwrap();
            fs::read(&path).unwrap()
        };
        assert!(bytes() == bytes());
    }
}

#[test]
fn what_a_file_system_cannot_hold_is_named() {
    let mut many = Tar::new().file("d/the-file", b"x");
    for number in 0..65_000 {
        many = many.hard_link(&format!("d/{number}"), "d/the-file");
    }
    let error = refusal(&many.end());
    assert!(
        error.to_string().starts_with("/d/") && error.to_string().contains("65000"),
        "{error}"
    );
    let error = refusal(
        &Tar::new()
            .dir("a/b", 0o755)
            .symlink("a/b/s", &"t".repeat(4096))
            .end(),
    );
    assert!(
        error.to_string().starts_with("/a/b/s cannot be in ext4"),
        "{error}"
    );
}

#[test]
fn an_empty_archive_is_an_empty_layer() {
    for filesystem in BOTH {
        let layer = Mounted::new(&Tar::new().end(), filesystem);
        assert_eq!(fs::read_dir(layer.root()).unwrap().count(), 0);
    }
}

#[test]
fn an_archive_that_is_cut_off_is_an_error_wherever_it_is() {
    let archive = Tar::new()
        .dir("d", 0o755)
        .file("d/f", &[1; 3000])
        .file("g", &[2; 100])
        .end();
    let dir = tempfile::tempdir().unwrap();
    // Where an entry ends, an archive may end, and some writers leave out the last one's padding.
    let may_end = |length: usize| matches!(length, 0 | 512 | 4024..=4096 | 4708..);
    for length in (0..4800).step_by(50).filter(|length| !may_end(*length)) {
        let made = make(&archive[..length], &dir.path().join("l"), raw(Filesystem::Ext4));
        assert!(made.is_err(), "{length} of {} bytes", archive.len());
    }
}
