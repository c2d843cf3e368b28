//! Where the spec is, and the VM's limits.

use std::{fs, os::unix::fs::FileTypeExt};

use serde_json::json;

use crate::scene::{Scene, layered, mount, rooted};

#[test]
fn without_a_bundle_it_is_the_current_directory() {
    let scene = Scene::new();
    scene.bundle("b", &rooted(json!([])));
    let mut command = scene.command(&["--format", "json"]);
    command.current_dir(scene.path("b"));
    let document = scene.run(command).json();
    assert_eq!(
        document["resources"]["shares"][0]["hostPath"],
        scene.text("b/../srv")
    );
}

#[test]
fn relative_paths_start_in_the_specs_directory_wherever_the_command_runs() {
    let scene = Scene::new();
    let bundle = scene.bundle("b", &rooted(json!([mount("bind", "../srv/one", &[])])));
    fs::rename(bundle.join("config.json"), bundle.join("other.json")).unwrap();
    let absolute = scene.text("b/other.json");
    let mut seen = Vec::new();
    for (directory, file) in [
        (".", "b/other.json"),
        ("b", "other.json"),
        ("l/1", "../../b/other.json"),
        ("l", absolute.as_str()),
    ] {
        let mut command = scene.command(&["--spec", file, "--format", "json"]);
        command.current_dir(scene.path(directory));
        let document = scene.run(command).json();
        let share = &document["resources"]["shares"][1]["hostPath"];
        let found = fs::canonicalize(share.as_str().unwrap()).unwrap();
        seen.push(found == fs::canonicalize(scene.path("srv")).unwrap());
    }
    assert_eq!(seen, [true; 4]);
}

#[test]
fn the_container_root_is_where_everything_of_the_container_goes() {
    let scene = Scene::new();
    scene.bundle("b", &layered(json!([mount("bind", "../srv", &[])])));
    let said = scene.plan(&[
        "--bundle",
        "b",
        "--format",
        "json",
        "--container-root",
        "/run/gcs/c/1f",
    ]);
    let document = said.json();
    assert_eq!(document["resources"]["containerRoot"], "/run/gcs/c/1f");
    assert_eq!(document["spec"]["root"]["path"], "/run/gcs/c/1f/rootfs");
    assert_eq!(document["spec"]["mounts"][0]["source"], "/run/gcs/c/1f/mounts/m0");
    assert_eq!(
        document["resources"]["scratch"]["guestPath"],
        "/run/gcs/c/1f/scratch"
    );
}

#[test]
fn without_a_vm_nothing_is_taken_and_the_root_is_on_the_host() {
    let scene = Scene::new();
    let mounts = json!([
        mount("bind", "../srv", &[]),
        mount("virtual-disk", "../gone.vhdx", &[])
    ]);
    scene.bundle("b", &layered(mounts.clone()));
    let document = scene
        .plan(&["--bundle", "b", "--no-vm", "--format", "json"])
        .json();
    assert_eq!(document["spec"]["root"]["path"], scene.text("b/rootfs"));
    assert_eq!(document["spec"]["mounts"], mounts);
    let resources = &document["resources"];
    assert_eq!(
        (&resources["disks"], &resources["shares"]),
        (&json!([]), &json!([]))
    );
    let layer = json!({"hostPath": scene.text("b/../l/2/layer.vhd")});
    assert_eq!(resources["layers"][0], layer, "no device, no guest path");
    let unused = json!({"scsi": {"used": 0, "total": 256}, "vpmem": {"used": 0, "total": 64}});
    assert_eq!(document["limits"], unused);
    assert_eq!(
        scene
            .plan(&["--bundle", "b", "--no-vm", "--format", "hcs"])
            .json(),
        json!([])
    );
    assert!(
        scene
            .plan(&["--bundle", "b", "--no-vm"])
            .text()
            .contains("host mount")
    );
}

#[test]
fn the_limits_of_persistent_memory_decide_which_layers_go_on_scsi() {
    let scene = Scene::new();
    scene.bundle("b", &layered(json!([])));
    let kinds = |options: &[&str]| {
        let mut arguments = vec!["--bundle", "b", "--format", "json"];
        arguments.extend(options);
        let document = scene.plan(&arguments).json();
        let layers = document["resources"]["layers"].as_array().unwrap().clone();
        let kinds: Vec<_> = layers
            .iter()
            .map(|layer| layer["device"]["kind"].as_str().unwrap().to_owned())
            .collect();
        (kinds.join(" "), document["limits"]["vpmem"].clone())
    };
    let used = |used: u32, total: u32| json!({"used": used, "total": total});
    assert_eq!(kinds(&[]), ("vpmem vpmem".to_owned(), used(2, 64)));
    assert_eq!(
        kinds(&["--vpmem-count", "1"]),
        ("vpmem scsi".to_owned(), used(1, 1))
    );
    assert_eq!(
        kinds(&["--vpmem-count", "0"]),
        ("scsi scsi".to_owned(), used(0, 0))
    );
    assert_eq!(
        kinds(&["--vpmem-count", "128"]),
        ("vpmem vpmem".to_owned(), used(2, 128))
    );
    let bytes = fs::metadata(scene.path("l/1/layer.vhd")).unwrap().len();
    let fits = ["--vpmem-size".to_owned(), bytes.to_string()];
    let too_small = ["--vpmem-size".to_owned(), (bytes - 1).to_string()];
    assert_eq!(
        kinds(&[&fits[0], &fits[1]]),
        ("vpmem vpmem".to_owned(), used(2, 64))
    );
    assert_eq!(
        kinds(&[&too_small[0], &too_small[1]]),
        ("scsi scsi".to_owned(), used(0, 64))
    );
}

#[test]
fn the_number_of_scsi_controllers_is_the_number_of_disks() {
    let scene = Scene::new();
    scene.bundle("b", &layered(json!([])));
    let total = |controllers: &str| {
        let said = scene.plan(&[
            "--bundle",
            "b",
            "--format",
            "json",
            "--scsi-controllers",
            controllers,
        ]);
        said.json()["limits"]["scsi"].clone()
    };
    assert_eq!(total("1"), json!({"used": 1, "total": 64}));
    assert_eq!(total("3"), json!({"used": 1, "total": 192}));
    let none = scene.plan(&["--bundle", "b", "--scsi-controllers", "0"]);
    assert_eq!(
        none.refusal(),
        "the utility VM has too few slots: 1 SCSI disks wanted, 0 of 0 free"
    );
}

#[test]
fn limits_that_no_vm_has_are_wrong_usage() {
    let scene = Scene::new();
    scene.bundle("b", &layered(json!([])));
    for wrong in [
        ["--scsi-controllers", "5"],
        ["--vpmem-count", "129"],
        ["--vpmem-size", "4G"],
    ] {
        let said = scene.plan(&["--bundle", "b", wrong[0], wrong[1]]);
        assert_eq!((said.status, said.stdout.as_str()), (Some(2), ""), "{wrong:?}");
        assert!(said.stderr.contains(wrong[0]), "{}", said.stderr);
    }
}

#[test]
fn a_block_device_is_a_pass_through_disk() {
    let scene = Scene::new();
    // Any of the machine's: nothing is read of it but its kind and number.
    let device = fs::read_dir("/dev")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::metadata(path).is_ok_and(|facts| facts.file_type().is_block_device()))
        .expect("a block device in /dev");
    let device = device.to_str().unwrap();
    scene.bundle("b", &rooted(json!([mount("physical-disk", device, &["ro"])])));
    let document = scene.plan(&["--bundle", "b", "--format", "json"]).json();
    let expected = json!({
        "mountIndex": 0, "hostPath": device, "guestPath": "/run/gcs/c/1/mounts/m0", "kind": "physical",
        "readOnly": true, "autoManage": false, "device": {"kind": "scsi", "controller": 0, "lun": 0},
    });
    assert_eq!(document["resources"]["disks"], json!([expected]));
    let documents = scene.plan(&["--bundle", "b", "--format", "hcs"]).json();
    assert_eq!(documents[0]["Settings"]["Type"], "PassThru", "{documents}");
}
