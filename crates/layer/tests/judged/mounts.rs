//! Layers, made and mounted.

use std::{
    fs::File,
    io::Cursor,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use cofferdam_archive::{Archive, Limits};
use cofferdam_layer::{Container, Filesystem, Layer, LayerError, Options, convert};
use tempfile::TempDir;

/// Both kinds.
pub(crate) const BOTH: [Filesystem; 2] = [Filesystem::Ext4, Filesystem::Erofs];

/// Runs a program that has to succeed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// Converts an archive that is in memory.
pub(crate) fn make(archive: &[u8], path: &Path, options: Options) -> Result<Layer, LayerError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    let mut archive = Archive::new(Cursor::new(archive), Limits::default());
    convert(&mut archive, &file, &options)
}

/// A layer without anything around it.
pub(crate) fn raw(filesystem: Filesystem) -> Options {
    Options {
        filesystem,
        container: Container::Raw,
        verity: false,
    }
}

/// A layer that was checked and is mounted; both end with it.
pub(crate) struct Mounted {
    pub(crate) layer: Layer,
    dir: TempDir,
}

impl Mounted {
    /// Converts, has the result checked, and mounts it.
    pub(crate) fn new(archive: &[u8], filesystem: Filesystem) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("layer.raw");
        let layer = make(archive, &image, raw(filesystem)).unwrap();
        check(&image, filesystem);
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let (name, options) = match filesystem {
            Filesystem::Ext4 => ("ext4", "ro,loop,noload"),
            Filesystem::Erofs => ("erofs", "ro,loop"),
        };
        run(Command::new("mount")
            .args(["-t", name, "-o", options])
            .arg(&image)
            .arg(&root));
        Self { layer, dir }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.root());
    }
}

/// Unmounts. A child that another test is just starting may for a moment have what this one had open.
pub(crate) fn unmount(root: &Path) {
    let start = Instant::now();
    loop {
        let output = Command::new("umount").arg(root).output().unwrap();
        if output.status.success() {
            return;
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if start.elapsed() > Duration::from_secs(20) {
            // A second panic would hide what the first one says.
            assert!(std::thread::panicking(), "umount: {said}");
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks the file system's own checker. It says nothing is wrong, or the test fails with its words.
pub(crate) fn check(image: &Path, filesystem: Filesystem) {
    match filesystem {
        Filesystem::Ext4 => run(Command::new("e2fsck").arg("-fn").arg(image)),
        Filesystem::Erofs => run(Command::new("fsck.erofs").arg(image)),
    };
}
