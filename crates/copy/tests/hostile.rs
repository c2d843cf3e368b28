//! Archives of a guest that wants to be elsewhere on the host, and of a host's user that wants out of the container.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use cofferdam_archive::{Entry, Kind, Time, Writer};
use cofferdam_copy::{CopyError, Policy, Root, Target, unpack};

fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        path: path.into(),
        kind,
        mode: 0o777,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Vec::new(),
    }
}

fn file(path: &str) -> Entry {
    let size = 4;
    entry(path, Kind::File { size, segments: None })
}

fn link(path: &str, target: impl AsRef<Path>) -> Entry {
    let target = target.as_ref().to_str().unwrap().into();
    entry(path, Kind::Symlink { target })
}

fn hard(path: &str, target: &str) -> Entry {
    let target = target.into();
    entry(path, Kind::HardLink { target })
}

fn directory(path: &str) -> Entry {
    entry(path, Kind::Directory)
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.entry(entry).unwrap();
        if matches!(entry.kind, Kind::File { .. }) {
            writer.data(b"evil").unwrap();
        }
    }
    writer.finish().unwrap()
}

/// A destination, and a file beside it that nobody may touch.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/to")).unwrap();
        fs::write(dir.path().join("secret"), "safe").unwrap();
        fs::write(dir.path().join("root/victim"), "safe").unwrap();
        Self(dir)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// As the command unpacks what came out of `/etc` of a container.
    fn on_the_host(&self, entries: &[Entry]) -> Result<(), CopyError> {
        let to = self.at("root/to");
        let target = Target::new(to.to_str().unwrap().as_bytes(), b"/etc");
        let stream = archive(entries);
        unpack(
            stream.as_slice(),
            &Root::own(),
            &target,
            &Policy::caller(),
            &mut drop,
        )
    }

    /// As the agent unpacks what a user gave.
    fn in_the_guest(&self, to: &str, entries: &[Entry]) -> Result<(), CopyError> {
        let root = Root::inside(&self.at("root")).unwrap();
        let target = Target::archive(to.as_bytes());
        let stream = archive(entries);
        unpack(stream.as_slice(), &root, &target, &Policy::root(), &mut drop)
    }

    fn nothing_happened(&self) {
        assert_eq!(fs::read_to_string(self.at("secret")).unwrap(), "safe");
        assert_eq!(fs::read_to_string(self.at("root/victim")).unwrap(), "safe");
        let names = |path: &str| {
            let list = fs::read_dir(self.at(path)).unwrap();
            let mut names: Vec<_> = list.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(""), ["root", "secret"]);
        assert_eq!(names("root"), ["to", "victim"]);
    }
}

#[test]
fn nothing_that_a_container_sends_leaves_the_destination_or_is_what_was_not_asked_for() {
    let out = |scene: &Scene| scene.at("root");
    type Attack<'a> = (&'a str, &'a dyn Fn(&Scene) -> Vec<Entry>, &'a str);
    let attacks: [Attack<'_>; 12] = [
        (
            "climbs",
            &|_| vec![directory("etc"), file("etc/../../victim")],
            "climbs out",
        ),
        ("climbs at once", &|_| vec![file("../victim")], "climbs out"),
        (
            "another name",
            &|_| vec![directory("etc"), file(".bashrc")],
            "not asked for",
        ),
        (
            "the directory itself",
            &|_| vec![directory("."), file("./.bashrc")],
            "not asked for",
        ),
        (
            "absolute",
            &|scene| vec![file(out(scene).join("victim").to_str().unwrap())],
            "not asked for",
        ),
        (
            "through a link",
            &|scene| {
                vec![
                    directory("etc"),
                    link("etc/out", out(scene)),
                    file("etc/out/victim"),
                ]
            },
            "opening etc/out",
        ),
        (
            "through a relative link",
            &|_| vec![directory("etc"), link("etc/out", "../.."), file("etc/out/victim")],
            "opening etc/out",
        ),
        (
            "through a link within",
            &|_| vec![directory("etc"), link("etc/out", "."), file("etc/out/x")],
            "opening etc/out",
        ),
        (
            "the first entry is a link",
            &|_| vec![link("etc", ".."), file("etc/victim")],
            "opening etc",
        ),
        (
            "a hard link to what is outside",
            &|_| vec![directory("etc"), hard("etc/x", "../victim")],
            "climbs out",
        ),
        (
            "a hard link through a link",
            &|_| {
                vec![
                    directory("etc"),
                    link("etc/out", "../.."),
                    hard("etc/x", "etc/out/victim"),
                ]
            },
            "opening the directory that holds etc/out/victim",
        ),
        (
            "a directory over a link",
            &|_| vec![link("etc", ".."), directory("etc")],
            "cannot take the place",
        ),
    ];
    for (name, entries, words) in attacks {
        let scene = Scene::new();
        let error = scene.on_the_host(&entries(&scene)).unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
        scene.nothing_happened();
        assert!(!scene.at("root/to/.bashrc").exists(), "{name}");
    }
}

#[test]
fn a_link_that_was_copied_is_not_written_through() {
    let scene = Scene::new();
    scene
        .on_the_host(&[
            directory("etc"),
            link("etc/x", scene.at("root/victim")),
            file("etc/x"),
            link("etc/y", scene.at("root/victim")),
            hard("etc/z", "etc/y"),
            file("etc/z"),
        ])
        .unwrap();
    scene.nothing_happened();
    assert_eq!(fs::read_to_string(scene.at("root/to/etc/x")).unwrap(), "evil");
    assert!(scene.at("root/to/etc/y").is_symlink());
}

#[test]
fn nothing_that_a_user_sends_leaves_the_containers_root() {
    for to in ["/", "/to", "/up/to"] {
        let scene = Scene::new();
        symlink("../../..", scene.at("root/to/up")).unwrap();
        symlink(scene.0.path(), scene.at("root/to/abs")).unwrap();
        let prefix = if to == "/" { "to/" } else { "" };
        // Each may be refused or end in the root; what counts is where nothing is.
        for path in ["up/secret", "abs/secret", "up/../../secret", "../secret"] {
            let _ = scene.in_the_guest(to, &[file(&format!("{prefix}{path}"))]);
        }
        let _ = scene.in_the_guest(to, &[link("l", "/.."), file("l/secret")]);
        let _ = scene.in_the_guest(to, &[link("l2", "../../.."), hard("h", "l2/secret"), file("h")]);
        assert_eq!(fs::read_to_string(scene.at("secret")).unwrap(), "safe", "{to}");
        let mut names: Vec<_> = fs::read_dir(scene.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["root", "secret"], "{to}");
    }
}

#[test]
fn a_stream_that_ends_in_a_file_names_it_and_leaves_no_half_of_it() {
    let scene = Scene::new();
    let stream = archive(&[directory("etc"), file("etc/whole"), file("etc/half")]);
    let to = scene.at("root/to");
    let target = Target::new(to.to_str().unwrap().as_bytes(), b"/etc");
    // Two bytes into the data of the last file: before its padding, and the archive's end.
    let cut = &stream[..stream.len() - 1024 - 510];
    let error = unpack(cut, &Root::own(), &target, &Policy::caller(), &mut drop).unwrap_err();
    assert!(
        error.to_string().contains("cut off") && error.to_string().contains("etc/half"),
        "{error}"
    );
    assert!(scene.at("root/to/etc/whole").exists() && !scene.at("root/to/etc/half").exists());
    let nothing = unpack(&[][..], &Root::own(), &target, &Policy::caller(), &mut drop);
    assert!(matches!(nothing, Err(CopyError::Nothing)));
}

#[test]
fn messages_are_one_line_whatever_a_file_is_called() {
    let scene = Scene::new();
    let error = scene
        .on_the_host(&[directory("etc"), file("a\n\x1b[31mb")])
        .unwrap_err();
    assert!(!error.to_string().contains(['\n', '\x1b']), "{error}");
}
