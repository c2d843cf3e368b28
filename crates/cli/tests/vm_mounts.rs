//! What a container sees of its layers, disks and shares, each kind of mount of the contract in a real VM.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use bundle::{Bundle, output_of, succeed};
use serde_json::json;

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn layers_are_overlaid_topmost_first_and_writes_go_to_the_scratch() {
    let script =
        "cat /etc/issue; test ! -e /etc/debian_version; echo $?; echo new > /etc/issue; cat /etc/issue
        stat -f -c %T /; ls -d /bin /etc >/dev/null && echo whole";
    let output = output_of(&Bundle::with_layers(script).run(), 0);
    assert_eq!(output, "Replaced by the upper layer.\n0\nnew\noverlayfs\nwhole\n");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn more_layers_than_one_page_of_mount_options_names() {
    const LAYERS: usize = 120;
    let bundle =
        Bundle::with_layers("cat /layers/* | sort -n | tail -1; ls /layers | wc -l; cat /layers/same");
    let layers = PathBuf::from(std::env::var_os("COFFERDAM_TEST_LAYERS").expect("cargo xtask test vm"));
    let mut folders: Vec<PathBuf> = (0..LAYERS).rev().map(|n| small_layer(&bundle, n)).collect();
    folders.extend([layers.join("base"), bundle.path("scratch")]);
    let run = bundle.set("windows", json!({ "layerFolders": folders })).run();
    let expected = format!("{}\n{}\n{}\n", LAYERS - 1, LAYERS + 1, LAYERS - 1);
    assert_eq!(output_of(&run, 0), expected);
}

/// A layer with a file of its own, and one that every layer replaces.
fn small_layer(bundle: &Bundle, number: usize) -> PathBuf {
    let folder = bundle.directory(&format!("layer{number}"), &[]);
    let tree = folder.join("tree/layers");
    fs::create_dir_all(&tree).unwrap();
    for name in [number.to_string(), "same".to_owned()] {
        fs::write(tree.join(name), format!("{number}\n")).unwrap();
    }
    let (raw, vhd) = (folder.join("raw"), folder.join("layer.vhd"));
    fs::File::create(&raw).unwrap().set_len(1 << 20).unwrap();
    succeed(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-O", "^has_journal", "-F", "-d"])
            .args([&folder.join("tree"), &raw]),
    );
    let options = ["convert", "-O", "vpc", "-o", "subformat=fixed,force_size=on"];
    succeed(Command::new("qemu-img").args(options).args([&raw, &vhd]));
    folder
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_directory_of_the_host_serves_as_the_root_and_keeps_its_rights() {
    for read_only in [false, true] {
        let bundle = Bundle::bare("cat /greeting; echo x > /made");
        let root = bundle.directory("root", &[]);
        dump_base_layer(&root);
        fs::write(root.join("greeting"), "hello\n").unwrap();
        let bundle = bundle.set("root", json!({ "path": "root", "readonly": read_only }));
        assert_eq!(output_of(&bundle.run(), i32::from(read_only)), "hello\n");
        assert_eq!(root.join("made").exists(), !read_only);
    }
}

/// A fixed VHD is a raw disk with a footer behind it, which debugfs does not look at.
fn dump_base_layer(root: &Path) {
    let layers = PathBuf::from(std::env::var_os("COFFERDAM_TEST_LAYERS").expect("cargo xtask test vm"));
    let command = format!("rdump / {}", root.display());
    succeed(
        Command::new("debugfs")
            .args(["-R", &command])
            .arg(layers.join("base/layer.vhd")),
    );
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn disks_of_every_format_are_mounted_under_their_rights_and_the_managed_one_is_deleted() {
    let script = "for d in raw qcow2 vhd vhdx managed; do echo $d > /$d/f && cat /$d/f; done
        echo no > /locked/f; echo $?; umount /locked 2>/dev/null; mount -o remount,rw /locked 2>/dev/null; echo no > /locked/f; echo $?";
    let bundle = Bundle::with_layers(script);
    let formats: [(&str, &str, &[&str]); 4] = [
        ("raw", "raw", &[]),
        ("qcow2", "qcow2", &[]),
        ("vhd", "vpc", &["-o", "subformat=dynamic,force_size=on"]),
        ("vhdx", "vhdx", &[]),
    ];
    let mut mounted = bundle;
    for (name, format, options) in formats {
        let image = mounted.disk(&format!("disk.{name}"), format, options);
        mounted = mounted.mount("virtual-disk", image, &format!("/{name}"), &[]);
    }
    let (locked, managed) = (
        mounted.disk("locked.qcow2", "qcow2", &[]),
        mounted.disk("managed.vhdx", "vhdx", &[]),
    );
    let before = fs::read(&locked).unwrap();
    let mounted = mounted.mount("virtual-disk", &locked, "/locked", &["RO"]);
    let mounted = mounted.mount("automanage-virtual-disk", &managed, "/managed", &[]);
    let output = output_of(&mounted.run(), 0);
    assert_eq!(output, "raw\nqcow2\nvhd\nvhdx\nmanaged\n1\n1\n");
    assert_eq!(
        fs::read(&locked).unwrap(),
        before,
        "a read-only disk's file is untouched"
    );
    assert!(!managed.exists(), "an auto-managed disk's file is gone");
    assert!(mounted.path("disk.qcow2").exists());
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_block_device_of_the_host_is_passed_through() {
    let bundle = Bundle::with_layers("echo written > /disk/f");
    let raw = bundle.disk("physical", "raw", &[]);
    let device = LoopDevice::over(&raw);
    let bundle = bundle.mount("physical-disk", &device.0, "/disk", &[]);
    output_of(&bundle.run(), 0);
    drop(device);
    let content = succeed(Command::new("debugfs").args(["-R", "cat /f"]).arg(&raw)).stdout;
    assert_eq!(content, b"written\n");
}

struct LoopDevice(PathBuf);

impl LoopDevice {
    fn over(file: &Path) -> Self {
        let output = succeed(Command::new("losetup").args(["--find", "--show"]).arg(file));
        Self(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        succeed(Command::new("losetup").arg("--detach").arg(&self.0));
    }
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_shared_directory_keeps_owners_modes_links_locks_and_renames() {
    let script = r#"set -e; cd /share
        echo one > a; chown 1234:4321 a; chmod 4751 a
        ln a hard; ln -s a soft; mkdir -m 2775 d; mv a d/renamed; touch -d @1000000000.5 hard
        cat d/renamed; readlink soft; stat -c '%u:%g %a %h' hard; stat -c %Y hard
        exec 9> lock; flock -n 9; (exec 8> lock; flock -n 8 && echo both || echo one holder)
        mkdir deep; for n in $(seq 1 300); do echo $n > deep/$n; done; ls deep | wc -l; rm -r deep; ls
        busybox dd if=/dev/zero of=big bs=1M count=24 2>/dev/null; sync; stat -c %s big
        echo more >> big; tail -c 5 big; rm big
        cp /bin/echo prog; ./prog executed; rm prog"#;
    let bundle = Bundle::with_layers(script);
    let share = bundle.directory("share", &[("from-host", "hello\n")]);
    let bundle = bundle.mount("bind", &share, "/share", &["rbind"]);
    let output = output_of(&bundle.run(), 0);
    let expected = "one\na\n1234:4321 4751 2\n1000000000\none holder\n300\nd\nfrom-host\nhard\nlock\nsoft\n25165824\nmore\nexecuted\n";
    assert_eq!(output, expected);
    let renamed = fs::metadata(share.join("d/renamed")).unwrap();
    assert_eq!(
        (
            renamed.uid(),
            renamed.gid(),
            renamed.mode() & 0o7777,
            renamed.nlink()
        ),
        (1234, 4321, 0o4751, 2)
    );
    assert_eq!(renamed.ino(), fs::metadata(share.join("hard")).unwrap().ino());
    assert_eq!(
        fs::metadata(share.join("d")).unwrap().permissions().mode() & 0o7777,
        0o2775
    );
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_read_only_share_cannot_be_written_even_after_a_remount() {
    let script = "cat /share/f; echo x > /share/f; echo $?; mount -o remount,rw,bind /share; echo x > /share/f; echo $?";
    let bundle = Bundle::with_layers(script);
    let share = bundle.directory("share", &[("f", "kept\n")]);
    let bundle = bundle.mount("bind", &share, "/share", &["rbind", "Ro"]);
    assert_eq!(output_of(&bundle.run(), 0), "kept\n1\n1\n");
    assert_eq!(fs::read(share.join("f")).unwrap(), b"kept\n");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_single_file_is_shared_without_its_neighbours_and_two_of_one_directory_both_work() {
    let script = "cat /one /two; echo changed > /two; grep -c secret /proc/mounts; exit 0";
    let bundle = Bundle::with_layers(script);
    let dir = bundle.directory("files", &[("a", "first\n"), ("b", "second\n"), ("secret", "x")]);
    let bundle =
        bundle
            .mount("bind", dir.join("a"), "/one", &["ro"])
            .mount("bind", dir.join("b"), "/two", &[]);
    assert_eq!(output_of(&bundle.run(), 0), "first\nsecond\n0\n");
    assert_eq!(fs::read(dir.join("b")).unwrap(), b"changed\n");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn symlinks_of_a_share_lead_nowhere_on_the_host() {
    let bundle = Bundle::with_layers(
        "cat /share/out; echo $?; cat /share/up/hostname-of-host; echo $?; cat /share/in",
    );
    let share = bundle.directory("share", &[("real", "inside\n")]);
    fs::write(bundle.path("hostname-of-host"), "leaked\n").unwrap();
    for (target, name) in [("/host-only", "out"), ("..", "up"), ("real", "in")] {
        std::os::unix::fs::symlink(target, share.join(name)).unwrap();
    }
    let bundle = bundle.mount("bind", &share, "/share", &[]);
    assert_eq!(output_of(&bundle.run(), 0), "1\n1\ninside\n");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_sandbox_directory_lives_in_the_vm_and_cannot_lead_out_of_it() {
    let bundle = Bundle::with_layers("echo x > /a/f; cat /b/f; stat -f -c %T /a");
    let bundle = bundle.mount("bind", "sandbox:///shared", "/a", &["rbind"]);
    let bundle = bundle.mount("bind", "sandbox:///shared", "/b", &["rbind"]);
    assert_eq!(output_of(&bundle.run(), 0), "x\ntmpfs\n");

    let escaping = Bundle::with_layers("true").mount("bind", "sandbox://../../..", "/a", &["rbind"]);
    let run = escaping.run();
    output_of(&run, 125);
    assert!(
        String::from_utf8_lossy(&run.stderr).contains("sandbox://"),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
}
