//! Rules R1 to R5: the root filesystem.

use std::path::Path;

use cofferdam_plan::{FileKind, ShareNeed};
use serde_json::json;

use crate::host::{FILE, Host, planned, planned_with, refused, without_vm};

const NO_ROOT: &str = "must provide either Windows.LayerFolders or Root.Path";

#[test]
fn r1_an_absent_root_is_an_empty_one() {
    refused(planned(&json!({})), None, NO_ROOT);
    refused(planned(&json!({"root": null})), None, NO_ROOT);
    let layers = json!({"windows": {"layerFolders": ["/l/1", "/l/s"]}});
    assert_eq!(
        planned(&layers).unwrap().spec["root"]["path"],
        "/run/gcs/c/1/rootfs"
    );
}

#[test]
fn r2_layers_are_listed_topmost_first_and_the_scratch_apart() {
    let spec = json!({
        "root": {"path": "ignored", "readonly": true},
        "windows": {"layerFolders": ["/l/2", "/l/1", "/l/s"]},
    });
    let plan = planned(&spec).unwrap();
    assert_eq!(
        plan.spec["root"],
        json!({"path": "/run/gcs/c/1/rootfs", "readonly": true})
    );
    let layers = plan.needs.layers.unwrap();
    let paths: Vec<_> = layers
        .read_only
        .iter()
        .map(|layer| layer.host_path.to_str().unwrap())
        .collect();
    assert_eq!(paths, ["/l/2/layer.vhd", "/l/1/layer.vhd"]);
    assert_eq!(layers.read_only[0].bytes, 4096);
    assert_eq!(layers.scratch.host_path, Path::new("/l/s/sandbox.vhdx"));
    assert_eq!(layers.scratch_path, "/run/gcs/c/1/scratch");
    assert_eq!(layers.root_path, "/run/gcs/c/1/rootfs");
    assert_eq!(plan.needs.shares, []);
}

#[test]
fn r2_a_layer_list_of_one_is_refused() {
    let spec = json!({"windows": {"layerFolders": ["/l/1"]}});
    let text = "failed to mount container storage: need at least two layers - base and scratch";
    refused(planned(&spec), None, text);
    refused(without_vm(&spec), None, text);
}

#[test]
fn r2_a_layer_that_is_no_image_is_refused_with_its_path() {
    let spec = json!({"windows": {"layerFolders": ["/l/3", "/l/s"]}});
    let text = refused(
        planned(&spec),
        None,
        "failed to mount container storage: /l/3/layer.vhd",
    );
    assert!(text.contains("not found"), "{text}");
    let directory = Host(vec![
        ("/l/1/layer.vhd", FileKind::Directory),
        ("/l/s/sandbox.vhdx", FILE),
    ]);
    let spec = json!({"windows": {"layerFolders": ["/l/1", "/l/s"]}});
    let result = planned_with(&spec, false, &directory.facts());
    let text = refused(result, None, "failed to mount container storage: /l/1/layer.vhd");
    assert!(
        text.ends_with("is a directory, but must be a disk image"),
        "{text}"
    );
}

#[test]
fn r2_a_scratch_that_is_no_image_is_refused_with_its_path_with_and_without_a_vm() {
    let spec = json!({"windows": {"layerFolders": ["/l/2", "/l/1"]}});
    let begin = "failed to mount container storage: /l/1/sandbox.vhdx: ";
    for result in [planned(&spec), without_vm(&spec)] {
        let text = refused(result, None, begin);
        assert!(text.contains("not found"), "{text}");
    }
}

#[test]
fn r3_without_a_vm_layers_are_mounted_on_the_host() {
    let spec = json!({"windows": {"layerFolders": ["/l/1", "/l/s"]}});
    let plan = without_vm(&spec).unwrap();
    assert_eq!(plan.spec["root"]["path"], "/bundle/rootfs");
    let layers = plan.needs.layers.unwrap();
    assert_eq!(
        (layers.root_path.as_str(), layers.scratch_path.as_str()),
        ("/bundle/rootfs", "/bundle/scratch")
    );
}

#[test]
fn r4_a_root_directory_is_shared_whole_with_its_rights() {
    for readonly in [false, true] {
        let plan = planned(&json!({"root": {"path": "/srv/data", "readonly": readonly}})).unwrap();
        let share = ShareNeed {
            mount_index: None,
            host_path: "/srv/data".into(),
            guest_path: "/run/gcs/c/1/rootfs".into(),
            read_only: readonly,
            allowed_names: None,
        };
        assert_eq!(plan.needs.shares, [share]);
        assert_eq!(plan.spec["root"]["path"], "/run/gcs/c/1/rootfs");
    }
}

#[test]
fn r4_an_empty_list_of_layers_counts_as_none() {
    let spec = json!({"root": {"path": "rootfs"}, "windows": {"layerFolders": []}});
    assert_eq!(planned(&spec).unwrap().needs.shares.len(), 1);
}

#[test]
fn r4_a_root_that_is_missing_or_no_directory_is_refused() {
    let text = refused(
        planned(&json!({"root": {"path": "/gone"}})),
        None,
        "adding plan9 root: ",
    );
    assert!(text.contains("not found"), "{text}");
    let text = refused(
        planned(&json!({"root": {"path": "/etc/hosts"}})),
        None,
        "adding plan9 root: ",
    );
    assert!(text.contains("must be a directory"), "{text}");
}

#[test]
fn r4_without_a_vm_a_root_directory_is_refused_with_the_reason() {
    refused(
        without_vm(&json!({"root": {"path": "rootfs"}})),
        None,
        "a root directory without layers",
    );
}

#[test]
fn r5_neither_layers_nor_root_is_refused() {
    for spec in [
        json!({"root": {}}),
        json!({"root": {"path": ""}}),
        json!({"windows": {}}),
    ] {
        refused(planned(&spec), None, NO_ROOT);
        refused(without_vm(&spec), None, NO_ROOT);
    }
}
