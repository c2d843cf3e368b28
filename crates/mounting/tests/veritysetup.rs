//! Hash trees as veritysetup(8) makes them, behind file systems as their own tools make them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use cofferdam_mounting::{filesystem::Filesystem, verity::Tree};

/// Runs a tool that must succeed, and gives its output.
fn succeed(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run `cargo xtask setup`"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A file system that holds a file of so many bytes.
fn file_system(dir: &Path, kind: &str, bytes: usize) -> PathBuf {
    let (tree, image) = (dir.join("tree"), dir.join(format!("{kind}-{bytes}")));
    // The tools keep what a file holds behind their file system.
    let _ = fs::remove_file(&image);
    fs::create_dir_all(&tree).unwrap();
    let content: Vec<u8> = (0..bytes).map(|at| (at >> 8 ^ at) as u8).collect();
    fs::write(tree.join("f"), content).unwrap();
    if kind == "erofs" {
        succeed(Command::new("mkfs.erofs").args([&image, &tree]));
    } else {
        let size = format!("{}k", (bytes >> 9) + 1024);
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args([
            "-q",
            "-t",
            "ext4",
            "-F",
            "-b",
            "4096",
            "-O",
            "^has_journal,^resize_inode",
            "-d",
        ]);
        succeed(mke2fs.args([&tree, &image]).arg(size));
    }
    image
}

/// Appends a tree and gives its root digest.
fn append_tree(image: &Path, options: &[&str]) -> String {
    let size = fs::metadata(image).unwrap().len();
    let mut format = Command::new("veritysetup");
    format.args(["format", "--data-block-size=4096", "--hash-block-size=4096"]);
    format.arg(format!("--data-blocks={}", size / 4096));
    format.arg(format!("--hash-offset={size}")).args(options);
    let said = succeed(format.args([image, image]));
    let line = said.lines().find_map(|line| line.strip_prefix("Root hash:"));
    line.unwrap().trim().to_owned()
}

fn find(image: &Path) -> Option<Tree> {
    let found = Filesystem::detect(image).unwrap();
    Tree::find(image, &found).unwrap()
}

#[test]
fn every_root_digest_is_the_one_that_was_announced() {
    let dir = tempfile::tempdir().unwrap();
    let salts: [&[&str]; 3] = [&[], &["--salt=-"], &["--salt=00ff"]];
    // One level of hashes, two and three.
    for (kind, bytes) in [
        ("ext4", 1000),
        ("erofs", 1000),
        ("erofs", 3 << 20),
        ("ext4", 80 << 20),
    ] {
        for salt in salts {
            let image = file_system(dir.path(), kind, bytes);
            let size = fs::metadata(&image).unwrap().len();
            assert_eq!(find(&image), None, "{kind} of {bytes}");
            let root = append_tree(&image, salt);
            // Where a layer's file ends is not where its tree ends: a VHD has its footer there.
            let file = File::options().append(true).open(&image).unwrap();
            file.set_len(fs::metadata(&image).unwrap().len() + 512).unwrap();
            let tree = find(&image).unwrap();
            assert_eq!(tree.root.to_string(), root, "{kind} of {bytes}, {salt:?}");
            assert_eq!(tree.data_blocks, size / 4096);
        }
    }
}

#[test]
fn a_topmost_block_that_was_changed_has_another_root() {
    let dir = tempfile::tempdir().unwrap();
    let image = file_system(dir.path(), "erofs", 1 << 20);
    let top = fs::metadata(&image).unwrap().len() + 4096;
    let root = append_tree(&image, &[]);
    let file = File::options().read(true).write(true).open(&image).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, top + 5).unwrap();
    file.write_all_at(&[byte[0] ^ 1], top + 5).unwrap();
    assert_ne!(find(&image).unwrap().root.to_string(), root);
    file.write_all_at(&byte, top + 5).unwrap();
    assert_eq!(find(&image).unwrap().root.to_string(), root);
}
