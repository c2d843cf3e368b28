//! Where things go, as docker has it: on the caller's side and inside of a root.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use cofferdam_copy::{CopyError, Policy, Root, Target, pack, unpack};

/// A directory with a file, and one with a tree.
struct Scene {
    dir: tempfile::TempDir,
    root: Root,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("from/tree/sub")).unwrap();
        fs::write(at("from/tree/sub/leaf"), "leaf").unwrap();
        fs::write(at("from/file"), "file").unwrap();
        fs::create_dir_all(at("to/dir")).unwrap();
        fs::write(at("to/taken"), "before").unwrap();
        let root = Root::inside(dir.path()).unwrap();
        Self { dir, root }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    fn copy(&self, from: &str, to: &str) -> Result<(), CopyError> {
        let mut stream = Vec::new();
        pack(&self.root, from.as_bytes(), false, &mut stream, &mut |note| {
            panic!("{note}")
        })?;
        let target = Target::new(to.as_bytes(), from.as_bytes());
        unpack(
            stream.as_slice(),
            &self.root,
            &target,
            &Policy::caller(),
            &mut |note| panic!("{note}"),
        )
    }

    fn refused(&self, from: &str, to: &str) -> String {
        self.copy(from, to).unwrap_err().to_string()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.dir.path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

#[test]
fn a_file_goes_into_a_directory_or_is_called_as_was_said() {
    let scene = Scene::new();
    for (to, place) in [
        ("/to/dir", "to/dir/file"),
        ("/to/dir/", "to/dir/file"),
        ("/to/new", "to/new"),
        ("/to/taken", "to/taken"),
        ("/", "file"),
        ("/to/dir/..", "to/file"),
    ] {
        scene.copy("/from/file", to).unwrap();
        assert_eq!(scene.read(place), "file", "{to}");
    }
    assert_eq!(
        scene.refused("/from/file", "/to/missing/"),
        "/to/missing: there is no such directory"
    );
    assert_eq!(
        scene.refused("/from/file", "/to/taken/"),
        "/to/taken: it is no directory"
    );
    let missing = scene.refused("/from/file", "/to/missing/file");
    assert!(
        missing.starts_with("opening the directory that holds /to/missing/file: No such file"),
        "{missing}"
    );
}

#[test]
fn a_directory_goes_into_a_directory_or_is_called_as_was_said() {
    let scene = Scene::new();
    for (from, to, place) in [
        ("/from/tree", "/to/dir", "to/dir/tree/sub/leaf"),
        ("/from/tree", "/to/new", "to/new/sub/leaf"),
        ("/from/tree/", "/to/slash/", "to/slash/sub/leaf"),
        ("/from/tree/.", "/to/dir", "to/dir/sub/leaf"),
        ("/from/tree/.", "/to/contents", "to/contents/sub/leaf"),
        ("/from/tree/sub/..", "/to/climbed", "to/climbed/sub/leaf"),
    ] {
        scene.copy(from, to).unwrap();
        assert_eq!(scene.read(place), "leaf", "{from} {to}");
    }
    for from in ["/from/tree", "/from/tree/."] {
        assert_eq!(
            scene.refused(from, "/to/taken"),
            "/to/taken: a directory cannot take the place of what is none"
        );
        assert!(scene.refused(from, "/to/missing/new").contains("No such file"));
    }
    assert!(scene.refused("/from/file/", "/to").contains("/from/file/"));
    assert!(
        scene
            .refused("/from/none", "/to")
            .contains("copying /from/none: No such file")
    );
}

#[test]
fn files_and_directories_do_not_take_each_others_place_inside_either() {
    let scene = Scene::new();
    fs::create_dir_all(scene.at("to/dir/tree/sub/leaf")).unwrap();
    let refused = scene.refused("/from/tree", "/to/dir");
    assert_eq!(
        refused,
        "tree/sub/leaf: only a directory can take the place of a directory"
    );
    fs::create_dir(scene.at("to/other")).unwrap();
    fs::write(scene.at("to/other/tree"), "").unwrap();
    let refused = scene.refused("/from/tree", "/to/other");
    assert_eq!(refused, "tree: a directory cannot take the place of what is none");
}

#[test]
fn links_at_the_destination_are_followed_and_end_at_the_root() {
    let scene = Scene::new();
    symlink("/to/dir", scene.at("into")).unwrap();
    symlink("../../../../to/aimed", scene.at("to/aims")).unwrap();
    symlink("loop", scene.at("loop")).unwrap();
    scene.copy("/from/file", "/into").unwrap();
    assert_eq!(scene.read("to/dir/file"), "file");
    scene.copy("/from/file", "/to/aims").unwrap();
    assert_eq!(scene.read("to/aimed"), "file");
    assert!(scene.at("to/aims").is_symlink());
    assert!(scene.refused("/from/file", "/loop").contains("following /loop"));
}

#[test]
fn a_link_at_the_source_is_copied_and_followed_only_where_that_is_asked_for() {
    let scene = Scene::new();
    symlink("file", scene.at("from/link")).unwrap();
    symlink("tree", scene.at("from/branch")).unwrap();
    scene.copy("/from/link", "/to/dir").unwrap();
    assert_eq!(fs::read_link(scene.at("to/dir/link")).unwrap(), Path::new("file"));
    scene.copy("/from/branch/", "/to/grown").unwrap();
    assert_eq!(scene.read("to/grown/sub/leaf"), "leaf");
    let mut stream = Vec::new();
    pack(&scene.root, b"/from/link", true, &mut stream, &mut drop).unwrap();
    let target = Target::new(b"/to/followed", b"/from/link");
    unpack(
        stream.as_slice(),
        &scene.root,
        &target,
        &Policy::caller(),
        &mut drop,
    )
    .unwrap();
    assert_eq!(scene.read("to/followed"), "file");
}

#[test]
fn an_archive_is_unpacked_in_a_directory_only_and_follows_links_up_to_the_root() {
    let scene = Scene::new();
    let mut stream = Vec::new();
    pack(&scene.root, b"/from/tree", false, &mut stream, &mut drop).unwrap();
    let unpacked = |to: &[u8]| {
        let target = Target::archive(to);
        unpack(
            stream.as_slice(),
            &scene.root,
            &target,
            &Policy::root(),
            &mut drop,
        )
    };
    unpacked(b"/to/dir").unwrap();
    assert_eq!(scene.read("to/dir/tree/sub/leaf"), "leaf");
    for to in [&b"/to/none"[..], b"/to/taken"] {
        let refused = unpacked(to).unwrap_err().to_string();
        assert!(
            refused.contains("unpacked in a directory that is there"),
            "{refused}"
        );
    }
    // As `/bin` is a link to `/usr/bin`, and `tar c bin/sh` does not name the directory.
    symlink("/to/dir", scene.at("bin")).unwrap();
    let mut writer = cofferdam_archive::Writer::new(Vec::new());
    writer.entry(&entry("bin/sh")).unwrap();
    let stream = writer.finish().unwrap();
    let target = Target::archive(b"/");
    unpack(
        stream.as_slice(),
        &scene.root,
        &target,
        &Policy::root(),
        &mut drop,
    )
    .unwrap();
    assert!(scene.at("to/dir/sh").is_file() && scene.at("bin").is_symlink());
}

fn entry(path: &str) -> cofferdam_archive::Entry {
    cofferdam_archive::Entry {
        path: path.into(),
        kind: cofferdam_archive::Kind::File {
            size: 0,
            segments: None,
        },
        mode: 0o644,
        uid: 7,
        gid: 8,
        mtime: cofferdam_archive::Time::default(),
        xattrs: Vec::new(),
    }
}

#[test]
fn directories_that_are_there_keep_what_they_are() {
    let scene = Scene::new();
    fs::create_dir(scene.at("to/dir/sub")).unwrap();
    for path in ["to/dir", "to/dir/sub"] {
        fs::set_permissions(scene.at(path), fs::Permissions::from_mode(0o711)).unwrap();
    }
    scene.copy("/from/tree/.", "/to/dir").unwrap();
    for path in ["to/dir", "to/dir/sub"] {
        assert_eq!(
            fs::metadata(scene.at(path)).unwrap().mode() & 0o7777,
            0o711,
            "{path}"
        );
    }
}

#[test]
fn the_callers_own_paths_start_at_its_working_directory() {
    let scene = Scene::new();
    std::env::set_current_dir(scene.dir.path()).unwrap();
    let root = Root::own();
    let mut stream = Vec::new();
    pack(&root, b"from/file", false, &mut stream, &mut drop).unwrap();
    for (to, place) in [(&b"here"[..], "here"), (b".", "file"), (b"to/dir", "to/dir/file")] {
        let target = Target::new(to, b"from/file");
        unpack(stream.as_slice(), &root, &target, &Policy::caller(), &mut drop).unwrap();
        assert_eq!(scene.read(place), "file");
    }
}
