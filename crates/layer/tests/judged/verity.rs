//! dm-verity trees, as veritysetup sees them.

use std::{fs, os::unix::fs::FileExt, process::Command};

use cofferdam_layer::Container;

use crate::{
    archives::Tar,
    mounts::{BOTH, check, make, raw, run},
};

#[test]
fn veritysetup_agrees_with_every_tree_and_with_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layer");
    // Trees of one level, of two, and of two with a second block on the upper.
    for size in [1000, 3_000_000, 70_000_000] {
        let content: Vec<u8> = (0..size)
            .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let archive = Tar::new().file("f", &content).end();
        for filesystem in BOTH {
            let mut options = raw(filesystem);
            options.verity = true;
            let layer = make(&archive, &path, options).unwrap();
            check(&path, filesystem);
            let root = layer.verity_root.unwrap().hex();
            let offset = layer.filesystem_bytes.to_string();
            let verify = || {
                let mut verify = Command::new("veritysetup");
                verify
                    .arg("verify")
                    .arg(&path)
                    .arg(&path)
                    .arg(&root)
                    .args(["--hash-offset", &offset]);
                verify
            };
            run(&mut verify());
            assert_eq!(layer.file_bytes, fs::metadata(&path).unwrap().len());
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[0xAA], layer.filesystem_bytes - 1).unwrap();
            assert!(!verify().output().unwrap().status.success());
        }
    }
}

#[test]
fn a_fixed_vhd_is_the_same_bytes_and_a_footer_that_others_read() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, vhd) = (dir.path().join("layer.raw"), dir.path().join("layer.vhd"));
    let archive = Tar::new().file("f", &[5; 100_000]).end();
    for filesystem in BOTH {
        let mut options = raw(filesystem);
        make(&archive, &plain, options).unwrap();
        options.container = Container::Vhd;
        let layer = make(&archive, &vhd, options).unwrap();
        let (plain_bytes, vhd_bytes) = (fs::read(&plain).unwrap(), fs::read(&vhd).unwrap());
        assert!(vhd_bytes[..plain_bytes.len()] == plain_bytes[..]);
        assert_eq!(vhd_bytes.len(), plain_bytes.len() + 512);
        let info = run(Command::new("qemu-img")
            .args(["info", "-f", "vpc", "--output=json"])
            .arg(&vhd));
        assert!(
            info.contains(&format!("\"virtual-size\": {}", layer.filesystem_bytes)),
            "{info}"
        );
    }
}
