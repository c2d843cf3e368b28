//! A disk that has no room left.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use cofferdam_store::Store;

use crate::recipe::{Layer, Recipe, assert_whole, files_in, noise, tar_of};

/// A small file system, gone with the value.
struct Small {
    dir: tempfile::TempDir,
}

impl Small {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        succeed(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
                .arg(dir.path()),
        );
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn resize(&self, size: &str) {
        succeed(
            Command::new("mount")
                .args(["-o", &format!("remount,size={size}")])
                .arg(self.dir.path()),
        );
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.dir.path()).status();
    }
}

#[track_caller]
fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn used(dir: &Path) -> usize {
    files_in(&dir.join("layers")).len()
}

#[test]
fn a_disk_that_fills_up_is_named_and_nothing_half_made_stays() {
    let disk = Small::new("1m");
    let store = Store::open(disk.path()).unwrap();
    Recipe::small().ingest(&store, "small").unwrap();
    let large = Recipe::of(&[
        Layer::of(tar_of(&[("a", noise(1, 100_000))])),
        Layer::of(tar_of(&[("b", noise(2, 3 << 19))])).gzipped(),
    ]);
    let digest = large.layer_digest(1);
    for _ in 0..2 {
        let error = large.ingest(&store, "large").unwrap_err().to_string();
        for part in ["layer 2 of 2", &digest, "No space left on device"] {
            assert!(error.contains(part), "{error}");
        }
        assert_whole(&store, &["small:latest"]);
    }
    disk.resize("64m");
    large.ingest(&store, "large").unwrap();
    assert_whole(&store, &["large:latest", "small:latest"]);
    assert_eq!(used(&disk.path()), 4);
}

#[test]
fn images_can_be_removed_from_a_disk_that_is_full() {
    let disk = Small::new("2m");
    let store = Store::open(disk.path()).unwrap();
    Recipe::small().ingest(&store, "small").unwrap();
    let other = Recipe::of(&[Layer::plain("other", "other")]);
    for _ in 0..2 {
        other.ingest(&store, "other").unwrap();
        let filler = disk.path().join("filler");
        std::fs::write(&filler, noise(1, 4 << 20)).unwrap_err();
        let error = other.ingest(&store, "another").unwrap_err().to_string();
        assert!(error.contains("No space left on device"), "{error}");
        store.remove("other").unwrap();
        assert_whole(&store, &["small:latest"]);
        assert_eq!(used(&disk.path()), 2);
        std::fs::remove_file(&filler).unwrap();
    }
}

#[test]
fn a_disk_of_any_size_takes_an_image_in_or_leaves_nothing_of_it_and_says_why() {
    let recipe = Recipe::of(&[
        Layer::of(tar_of(&[("a", noise(1, 150_000))])).gzipped(),
        Layer::of(tar_of(&[("b", noise(2, 100_000))])),
        Layer::plain("c", "c"),
    ]);
    let mut refusals = 0;
    for kib in (8..4096).step_by(24) {
        let disk = Small::new(&format!("{kib}k"));
        let store = Store::open(disk.path()).unwrap();
        match recipe.ingest(&store, "app") {
            Ok(_) => {
                assert_whole(&store, &["app:latest"]);
                assert!(refusals > 5, "{refusals}");
                return;
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("No space left on device"), "{kib} KiB: {error}");
                assert_whole(&store, &[]);
                // Layers that were finished are kept for the next try; without a name, they go when asked.
                store.collect().unwrap();
                assert_eq!(used(&disk.path()), 0);
                refusals += 1;
            }
        }
    }
    panic!("4 MiB were not enough");
}
