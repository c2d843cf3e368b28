//! The three formats.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::scene::{Scene, layered, mount, rooted};

/// A bundle with something of everything that needs no block device.
fn everything() -> Scene {
    let scene = Scene::new();
    scene.image("b/data.vhdx", "vhdx");
    scene.image("b/scrap.qcow2", "qcow2");
    let mounts = json!([
        {"destination": "/etc/one", "type": "bind", "source": "../srv/one", "options": ["rbind", "RO"]},
        {"destination": "/proc", "type": "proc", "source": "proc"},
        mount("virtual-disk", "data.vhdx", &["ro"]),
        mount("automanage-virtual-disk", "scrap.qcow2", &[]),
        mount("bind", "../srv", &[]),
        mount("bind", "sandbox://pod", &[]),
    ]);
    scene.bundle("b", &layered(mounts));
    scene
}

#[test]
fn the_table_has_a_line_for_every_layer_and_mount_and_the_use_against_the_limits() {
    let scene = everything();
    let said = scene.plan(&["--bundle", "b"]);
    let table = said.text();
    let lines: Vec<_> = table
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()))
        .map(|cells| cells.collect::<Vec<_>>())
        .collect();
    let (data, scrap) = (scene.text("b/data.vhdx"), scene.text("b/scrap.qcow2"));
    // The root is not resolved further than to the bundle.
    let (one, srv) = (scene.text("b/../srv"), scene.text("b/../srv"));
    let share = "unmounted, no longer shared";
    let expected = [
        vec![
            "ITEM",
            "HOST PATH",
            "DEVICE",
            "GUEST PATH",
            "RIGHTS",
            "COST",
            "ON RELEASE",
        ],
        vec![
            "mount 0 on /etc/one",
            &one,
            "Plan 9 share of one",
            "/run/gcs/c/1/mounts/m0",
            "ro",
            "1 share",
            share,
        ],
        vec![
            "mount 1 on /proc",
            "proc",
            "left to the runtime",
            "-",
            "-",
            "-",
            "-",
        ],
        vec![
            "mount 2 on /m",
            &data,
            "SCSI 0:1",
            "/run/gcs/c/1/mounts/m2",
            "ro",
            "1 SCSI disk",
            "unmounted, detached",
        ],
        vec![
            "mount 3 on /m",
            &scrap,
            "SCSI 0:2",
            "/run/gcs/c/1/mounts/m3",
            "rw",
            "1 SCSI disk",
            "unmounted, detached, file deleted",
        ],
        vec![
            "mount 4 on /m",
            &srv,
            "Plan 9 share",
            "/run/gcs/c/1/mounts/m4",
            "rw",
            "1 share",
            share,
        ],
        vec![
            "mount 5 on /m",
            "sandbox://pod",
            "left to the runtime",
            "-",
            "-",
            "-",
            "-",
        ],
        vec!["Used: 3 of 256 SCSI disks, 2 of 64 VPMEM devices, 2 of any number of shares"],
    ];
    for line in &expected {
        assert!(lines.contains(line), "{line:?} is not in\n{table}");
    }
    for item in ["layer 2", "layer 1", "scratch", "root"] {
        assert!(
            lines.iter().any(|line| line.first() == Some(&item)),
            "{item} is not in\n{table}"
        );
    }
    assert_eq!(lines.len(), 1 + 4 + 6 + 2, "{table}");
}

#[test]
fn json_is_one_object_with_the_members_of_the_contract() {
    let scene = everything();
    let document = scene.plan(&["--bundle", "b", "--format", "json"]).json();
    let members: Vec<_> = document.as_object().unwrap().keys().collect();
    assert_eq!(members, ["spec", "resources", "limits"]);
    let vpmem = |index: u32| json!({"kind": "vpmem", "index": index});
    let scsi = |lun: u8| json!({"kind": "scsi", "controller": 0, "lun": lun});
    let expected = json!({
        "containerRoot": "/run/gcs/c/1",
        "layers": [
            {"hostPath": scene.text("b/../l/2/layer.vhd"), "guestPath": "/run/layers/p0", "device": vpmem(0)},
            {"hostPath": scene.text("b/../l/1/layer.vhd"), "guestPath": "/run/layers/p1", "device": vpmem(1)},
        ],
        "scratch": {"hostPath": scene.text("b/../l/s/sandbox.vhdx"), "guestPath": "/run/gcs/c/1/scratch",
                    "device": scsi(0)},
        "disks": [
            {"mountIndex": 2, "hostPath": scene.text("b/data.vhdx"), "guestPath": "/run/gcs/c/1/mounts/m2",
             "kind": "virtual", "readOnly": true, "autoManage": false, "device": scsi(1)},
            {"mountIndex": 3, "hostPath": scene.text("b/scrap.qcow2"), "guestPath": "/run/gcs/c/1/mounts/m3",
             "kind": "virtual", "readOnly": false, "autoManage": true, "device": scsi(2)},
        ],
        "shares": [
            {"mountIndex": 0, "hostPath": scene.text("b/../srv"), "guestPath": "/run/gcs/c/1/mounts/m0",
             "readOnly": true, "allowedNames": ["one"]},
            {"mountIndex": 4, "hostPath": scene.text("b/../srv"), "guestPath": "/run/gcs/c/1/mounts/m4",
             "readOnly": false},
        ],
    });
    assert_eq!(document["resources"], expected);
    let limits = json!({"scsi": {"used": 3, "total": 256}, "vpmem": {"used": 2, "total": 64}});
    assert_eq!(document["limits"], limits);
    let spec = &document["spec"];
    assert_eq!(spec["root"], json!({"path": "/run/gcs/c/1/rootfs"}));
    assert_eq!(
        spec["mounts"][0],
        json!({"destination": "/etc/one", "type": "bind", "source": "/run/gcs/c/1/mounts/m0/one",
               "options": ["rbind", "RO"]})
    );
    assert_eq!(
        spec["mounts"][3],
        json!({"destination": "/m", "type": "none", "source": "/run/gcs/c/1/mounts/m3", "options": []})
    );
    assert_eq!(spec["mounts"][5]["source"], "sandbox://pod");
}

#[test]
fn a_shared_root_has_neither_layers_nor_scratch_nor_a_mount_index() {
    let scene = Scene::new();
    scene.bundle("b", &rooted(json!([])));
    let document = scene.plan(&["--bundle", "b", "--format", "json"]).json();
    let share =
        json!({"hostPath": scene.text("b/../srv"), "guestPath": "/run/gcs/c/1/rootfs", "readOnly": true});
    let expected = json!({"containerRoot": "/run/gcs/c/1", "layers": [], "disks": [], "shares": [share]});
    assert_eq!(document["resources"], expected);
}

#[test]
fn hcs_is_an_array_of_documents_that_may_be_sent_in_order() {
    let scene = everything();
    let documents = scene.plan(&["--bundle", "b", "--format", "hcs"]).json();
    let documents = documents.as_array().unwrap();
    let resources: Vec<_> = documents
        .iter()
        .map(|d| d["ResourcePath"].as_str().unwrap_or("-"))
        .collect();
    let expected = [
        "VirtualMachine/Devices/VirtualPMem/Devices/0",
        "VirtualMachine/Devices/VirtualPMem/Devices/1",
        "VirtualMachine/Devices/Scsi/0/Attachments/0",
        "-",
        "VirtualMachine/Devices/Scsi/0/Attachments/1",
        "VirtualMachine/Devices/Scsi/0/Attachments/2",
        "VirtualMachine/Devices/Plan9/Shares",
        "VirtualMachine/Devices/Plan9/Shares",
    ];
    assert_eq!(resources, expected);
    assert_eq!(documents[3]["GuestRequest"]["ResourceType"], "CombinedLayers");
    assert_eq!(
        documents[6]["Settings"]["AllowedFiles"],
        json!(["one"]),
        "{}",
        documents[6]
    );
    assert!(
        documents
            .iter()
            .all(|d| d["GuestRequest"]["RequestType"] == "Add")
    );
}

/// A plan whose output fills a pipe many times over.
fn long() -> Scene {
    let scene = Scene::new();
    let mounts: Vec<Value> = (0..4_000).map(|_| mount("bind", "../srv", &[])).collect();
    scene.bundle("b", &rooted(json!(mounts)));
    scene
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let scene = long();
    for format in ["table", "json", "hcs"] {
        let mut command = scene.command(&["--bundle", "b", "--format", format]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        // The reader is gone; far more than a pipe holds was to come.
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), said.as_str()),
            (Some(0), ""),
            "{format}: {first}"
        );
    }
}

#[test]
fn a_refusal_nobody_reads_has_its_status_all_the_same() {
    let scene = Scene::new();
    let mut command = scene.command(&["--bundle", "gone", "--format", "json"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.starts_with("cofferdam: ") && !said.contains("panicked"),
        "{said}"
    );
}
