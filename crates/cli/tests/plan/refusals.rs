//! Bad input: each is refused with exit status 1 and an error of its own, and nothing is touched.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use serde_json::{Value, json};

use crate::scene::{Scene, layered, mount, rooted};

/// Refused on standard error, and the same in JSON, with the mount at fault.
#[track_caller]
fn refused(scene: &Scene, spec: &Value, mount_index: Option<usize>) -> String {
    scene.bundle("b", spec);
    let message = scene.plan(&["--bundle", "b"]).refusal().to_owned();
    assert_eq!(
        scene.plan(&["--bundle", "b", "--format", "hcs"]).refusal(),
        message
    );
    let error = scene.plan(&["--bundle", "b", "--format", "json"]).json_refusal();
    let mut expected = json!({"message": message});
    if let Some(index) = mount_index {
        expected["mountIndex"] = json!(index);
        assert!(message.starts_with(&format!("mount {index}: ")), "{message}");
    }
    assert_eq!(error, expected);
    message
}

/// The same for one mount at index 1 of a container that is in order otherwise.
#[track_caller]
fn refused_mount(scene: &Scene, kind: &str, source: &str) -> String {
    let before = json!({"destination": "/proc", "type": "proc", "source": "proc"});
    refused(scene, &rooted(json!([before, mount(kind, source, &[])])), Some(1))
}

#[test]
fn no_root() {
    let scene = Scene::new();
    for spec in [
        json!({}),
        json!({"root": {"path": ""}}),
        json!({"windows": {"layerFolders": []}}),
    ] {
        let message = refused(&scene, &spec, None);
        assert_eq!(message, "must provide either Windows.LayerFolders or Root.Path");
    }
}

#[test]
fn a_root_that_is_missing_or_a_file() {
    let scene = Scene::new();
    let message = refused(&scene, &json!({"root": {"path": "gone"}}), None);
    assert_eq!(
        message,
        "adding plan9 root: No such file or directory (os error 2)"
    );
    let message = refused(&scene, &json!({"root": {"path": "../srv/one"}}), None);
    assert_eq!(
        message,
        "adding plan9 root: is a regular file, but must be a directory"
    );
}

#[test]
fn a_root_directory_without_a_vm() {
    let scene = Scene::new();
    scene.bundle("b", &rooted(json!([])));
    let said = scene.plan(&["--bundle", "b", "--no-vm"]);
    assert!(
        said.refusal()
            .starts_with("a root directory without layers cannot be shared"),
        "{}",
        said.refusal()
    );
}

#[test]
fn an_empty_source_or_destination() {
    let scene = Scene::new();
    for kind in ["bind", "virtual-disk", "automanage-virtual-disk", "physical-disk"] {
        let message = refused_mount(&scene, kind, "");
        let expected = "mount 1: invalid OCI spec - a mount must have both source and a destination: source \"\", \
                        destination \"/m\"";
        assert_eq!(message, expected);
    }
    let nowhere = json!({"type": "bind", "source": "../srv"});
    let message = refused(&scene, &rooted(json!([nowhere])), Some(0));
    assert!(
        message.contains("must have both source and a destination"),
        "{message}"
    );
}

#[test]
fn a_missing_source() {
    let scene = Scene::new();
    let gone = scene.text("b/../gone");
    let reason = "No such file or directory (os error 2)";
    for (kind, begin) in [
        ("bind", "could not open bind mount target: "),
        ("virtual-disk", "adding SCSI virtual disk mount "),
        ("automanage-virtual-disk", "adding SCSI virtual disk mount "),
        ("physical-disk", "adding SCSI physical disk mount "),
    ] {
        let message = refused_mount(&scene, kind, "../gone");
        assert_eq!(message, format!("mount 1: {begin}{gone}: {reason}"));
    }
}

#[test]
fn an_unreadable_source_for_a_user_who_is_not_root() {
    let scene = Scene::new();
    scene.image("image.qcow2", "qcow2");
    fs::create_dir(scene.path("locked")).unwrap();
    fs::write(scene.path("locked/file"), "").unwrap();
    let open = |name: &str, mode| {
        fs::set_permissions(scene.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    open("image.qcow2", 0);
    open(".", 0o755);
    open("locked", 0);
    let cases = [
        ("bind", "../locked/file", "could not open bind mount target: "),
        (
            "virtual-disk",
            "../image.qcow2",
            "adding SCSI virtual disk mount ",
        ),
    ];
    for (kind, source, begin) in cases {
        scene.bundle("b", &rooted(json!([mount(kind, source, &[])])));
        let output = unprivileged(&scene, &["--bundle", "b"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let path = scene.text(&format!("b/{source}"));
        assert!(
            said.starts_with(&format!("cofferdam: mount 0: {begin}{path}: "))
                && said.contains("Permission denied"),
            "{said}"
        );
    }
    open("locked", 0o755);
}

/// Root may read everything: the program runs as nobody then, from a copy that nobody can reach.
fn unprivileged(scene: &Scene, arguments: &[&str]) -> std::process::Output {
    let program = scene.path("cofferdam");
    let original = scene.command(arguments);
    fs::copy(original.get_program(), &program).unwrap();
    let as_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let mut command = if as_root {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program);
        command
    } else {
        Command::new(&program)
    };
    let output = command
        .args(original.get_args())
        .current_dir(scene.root())
        .output()
        .unwrap();
    fs::remove_file(program).unwrap();
    output
}

#[test]
fn a_directory_where_a_disk_is_expected() {
    let scene = Scene::new();
    for kind in ["virtual-disk", "automanage-virtual-disk"] {
        let message = refused_mount(&scene, kind, "../srv");
        assert!(
            message.ends_with(": is a directory, but must be a disk image"),
            "{message}"
        );
    }
    let message = refused_mount(&scene, "physical-disk", "../srv");
    assert!(
        message.ends_with(": is a directory, but must be a block device"),
        "{message}"
    );
    let message = refused_mount(&scene, "physical-disk", "../srv/one");
    assert!(
        message.ends_with(": is a regular file, but must be a block device"),
        "{message}"
    );
    fs::create_dir(scene.path("l/1/x")).unwrap();
    fs::remove_file(scene.path("l/1/layer.vhd")).unwrap();
    fs::rename(scene.path("l/1/x"), scene.path("l/1/layer.vhd")).unwrap();
    let message = refused(&scene, &layered(json!([])), None);
    let layer = scene.text("b/../l/1/layer.vhd");
    let expected =
        format!("failed to mount container storage: {layer}: is a directory, but must be a disk image");
    assert_eq!(message, expected);
}

/// Overwrites bytes of a file, from its start or, with a negative offset, from its end.
fn damage(path: &Path, offset: i64, length: usize) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let from = match u64::try_from(offset) {
        Ok(offset) => SeekFrom::Start(offset),
        Err(_) => SeekFrom::End(offset),
    };
    file.seek(from).unwrap();
    file.write_all(&vec![0xa5; length]).unwrap();
}

#[test]
fn a_disk_image_with_a_damaged_header() {
    // Behind the signature, by which the format is told: a fixed VHD has its footer at the end; a VHDX has two
    // headers, at 64 and 128 KiB.
    let cases = [
        ("bad.vhd", "vpc", vec![(-500, 100)]),
        ("bad.vhdx", "vhdx", vec![(65_536, 512), (131_072, 512)]),
        ("bad.qcow2", "qcow2", vec![(4, 100)]),
    ];
    for (name, format, places) in cases {
        let scene = Scene::new();
        let image = scene.image(name, format);
        let source = format!("../{name}");
        let good = rooted(json!([mount("virtual-disk", &source, &[])]));
        scene.bundle("b", &good);
        scene.plan(&["--bundle", "b"]).text();
        for (offset, length) in places {
            damage(&image, offset, length);
        }
        let message = refused_mount(&scene, "virtual-disk", &source);
        let path = scene.text(&format!("b/../{name}"));
        let begin = format!("mount 1: adding SCSI virtual disk mount {path}: is no usable disk image: ");
        let reason = message.strip_prefix(&begin);
        assert!(reason.is_some_and(|reason| !reason.is_empty()), "{message}");
    }
    let scene = Scene::new();
    damage(&scene.path("l/2/layer.vhd"), -500, 100);
    let message = refused(&scene, &layered(json!([])), None);
    let layer = scene.text("b/../l/2/layer.vhd");
    let begin = format!("failed to mount container storage: {layer}: is no usable disk image: ");
    assert!(message.starts_with(&begin), "{message}");
}

#[test]
fn more_disks_than_slots() {
    let scene = Scene::new();
    scene.image("disk0.img", "raw");
    for n in 1..=64 {
        fs::copy(scene.path("disk0.img"), scene.path(&format!("disk{n}.img"))).unwrap();
    }
    let mounts: Vec<_> = (0..=64)
        .map(|n| mount("virtual-disk", &format!("../disk{n}.img"), &[]))
        .collect();
    let [too_many, enough] = [&mounts[..], &mounts[..64]].map(|mounts| rooted(json!(mounts)));
    scene.bundle("b", &too_many);
    let one_controller = ["--bundle", "b", "--scsi-controllers", "1"];
    let message = "the utility VM has too few slots: 65 SCSI disks wanted, 64 of 64 free";
    assert_eq!(scene.plan(&one_controller).refusal(), message);
    let error = scene
        .plan(&[&one_controller[..], &["--format", "json"]].concat())
        .json_refusal();
    assert_eq!(error, json!({"message": message}), "no single mount is at fault");
    scene.bundle("b", &enough);
    let said = scene.plan(&one_controller);
    assert!(
        said.text().contains("Used: 64 of 64 SCSI disks"),
        "{}",
        said.stdout
    );
}

#[test]
fn a_layer_list_of_one() {
    let scene = Scene::new();
    let message = refused(&scene, &json!({"windows": {"layerFolders": ["../l/1"]}}), None);
    assert_eq!(
        message,
        "failed to mount container storage: need at least two layers - base and scratch"
    );
    let said = scene.plan(&["--bundle", "b", "--no-vm"]);
    assert_eq!(said.refusal(), message);
}

#[test]
fn a_file_that_is_a_layer_and_a_writable_disk() {
    let scene = Scene::new();
    let spec = layered(json!([
        mount("bind", "../srv", &[]),
        mount("virtual-disk", "../l/1/layer.vhd", &[])
    ]));
    let message = refused(&scene, &spec, Some(1));
    assert!(message.contains("is in use as a read-only layer"), "{message}");
}

#[test]
fn what_is_no_json_or_no_spec_is_told_with_line_and_column() {
    let scene = Scene::new();
    for (text, place, begin) in [
        (
            "{\n  \"root\": ,\n}",
            "line 2 column 11",
            "the spec is not JSON: ",
        ),
        ("{\n  \"mounts\": 7\n}", "line 2 column 13", "not an OCI spec: "),
        ("", "line 1 column 0", "the spec is not JSON: "),
    ] {
        fs::write(scene.path("b/config.json"), text).unwrap();
        for arguments in [["--bundle", "b"], ["--spec", "b/config.json"]] {
            let said = scene.plan(&arguments);
            let file = scene.text("b/config.json");
            let message = said.refusal();
            assert!(message.starts_with(&format!("in {file}: {begin}")), "{message}");
            assert!(message.ends_with(place), "{message}");
            let error = scene
                .plan(&[&arguments[..], &["--format", "json"]].concat())
                .json_refusal();
            assert_eq!(error, json!({"message": message}));
        }
    }
}

#[test]
fn a_bundle_without_a_config_or_that_is_none() {
    let scene = Scene::new();
    for (bundle, reason) in [
        ("b", "No such file or directory (os error 2)"),
        ("gone", "No such file or directory (os error 2)"),
        ("srv/one", "Not a directory (os error 20)"),
    ] {
        let file = scene.text(&format!("{bundle}/config.json"));
        let message = format!("reading {file}: {reason}");
        assert_eq!(scene.plan(&["--bundle", bundle]).refusal(), message);
        let error = scene
            .plan(&["--bundle", bundle, "--format", "json"])
            .json_refusal();
        assert_eq!(error, json!({"message": message}));
    }
}
