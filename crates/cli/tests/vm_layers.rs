//! Layers of each kind in real VMs: what was made of an image is what its containers see, and what was changed since is
//! not seen at all.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;
mod picture;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

use bundle::output_of;
use picture::{IMAGE, Picture};
use serde_json::json;

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_container_sees_the_same_whatever_its_layers_are_made_as() {
    let picture = Picture::in_vm(json!({}));
    let script = "cd / && for f in /etc/* /srv/* /srv/data/* /bin/sh; do stat=$(test -L $f && echo link); \
                  echo $f $stat; done; cat /srv/data/given; echo w > /srv/data/given && cat /srv/data/given";
    let words = |name| [name, "/bin/sh", "-c", script];
    let expected = output_of(&picture.run(&words(IMAGE)), 0);
    assert!(expected.contains("by the image\nw\n"), "{expected}");
    for (name, options) in [
        ("erofs:1", &["--format", "erofs"][..]),
        ("ext4-verity:1", &["--verity"]),
        ("erofs-verity:1", &["--format", "erofs", "--verity"]),
    ] {
        picture.again(name, options);
        assert_eq!(output_of(&picture.run(&words(name)), 0), expected, "{name}");
    }
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_layer_that_was_changed_is_not_read() {
    let picture = Picture::in_vm(json!({}));
    let words = ["v:1", "/bin/sh", "-c", "cat /srv/data/given"];
    for options in [&["--verity"][..], &["--verity", "--format", "erofs"]] {
        let folders = picture.again("v:1", options);
        assert_eq!(output_of(&picture.run(&words), 0), "by the image\n");
        let path = folders.last().unwrap().join("layer.vhd");
        let bytes = fs::read(&path).unwrap();
        let at = bytes
            .windows(13)
            .position(|window| window == b"by the image\n")
            .unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"By the attacker", at as u64).unwrap();
        let changed = picture.run(&words);
        assert!(
            !changed.status.success() && changed.stdout.is_empty(),
            "{changed:?}"
        );
        let said = String::from_utf8_lossy(&changed.stderr);
        assert!(
            said.contains("Input/output error") || said.contains("I/O error") || said.contains("dm-verity"),
            "{said}"
        );
        // The superblock of the tree itself: what was meant to be checked is not mounted unchecked.
        file.write_all_at(&bytes[at..at + 15], at as u64).unwrap();
        let tree = bytes
            .windows(8)
            .rposition(|window| window == b"verity\0\0")
            .unwrap();
        file.write_all_at(&[9], tree as u64 + 8).unwrap();
        let refused = picture.run(&words);
        output_of(&refused, 125);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("dm-verity") && said.contains("version 9"), "{said}");
        fs::write(&path, bytes).unwrap();
    }
}
