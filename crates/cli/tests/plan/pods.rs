//! Several bundles: the containers of one VM.

use serde_json::{Value, json};

use crate::scene::{Scene, layered, mount, rooted};

/// Two containers with the same layers and a disk of both, the second read-write, and one on a directory.
fn three() -> Scene {
    let scene = Scene::new();
    scene.image("data.qcow2", "qcow2");
    std::fs::create_dir(scene.path("l/s2")).unwrap();
    scene.image("l/s2/sandbox.vhdx", "vhdx");
    scene.bundle(
        "web",
        &layered(json!([
            mount("virtual-disk", "../data.qcow2", &["ro"]),
            mount("bind", "../srv", &[])
        ])),
    );
    let mut db = layered(json!([mount("virtual-disk", "../data.qcow2", &[])]));
    db["windows"]["layerFolders"][2] = json!("../l/s2");
    scene.bundle("db", &db);
    scene.bundle("logs", &rooted(json!([mount("bind", "../srv", &[])])));
    scene
}

const ALL: [&str; 6] = ["--bundle", "web", "--bundle", "db", "--spec", "logs/config.json"];

fn plan(scene: &Scene, more: &[&str]) -> crate::scene::Said {
    scene.plan(&[&ALL, more].concat())
}

#[test]
fn json_has_each_container_and_the_limits_of_all() {
    let document = plan(&three(), &["--format", "json"]).json();
    let members: Vec<_> = document.as_object().unwrap().keys().collect();
    assert_eq!(members, ["containers", "limits"]);
    let limits = json!({"scsi": {"used": 3, "total": 256}, "vpmem": {"used": 2, "total": 64}});
    assert_eq!(document["limits"], limits);
    let containers = document["containers"].as_array().unwrap();
    let of = |member: &str| {
        containers
            .iter()
            .map(|one| one["resources"][member].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of("containerRoot"),
        ["/run/gcs/c/1", "/run/gcs/c/2", "/run/gcs/c/3"]
    );
    let layer = |container: usize, n: usize| of("layers")[container][n]["device"].clone();
    assert_eq!((layer(0, 0), layer(0, 1)), (layer(1, 0), layer(1, 1)));
    let disk = |n: usize| containers[n]["resources"]["disks"][0].clone();
    assert_eq!(disk(0)["device"], disk(1)["device"]);
    assert_eq!(
        (disk(0)["guestPath"].clone(), disk(1)["guestPath"].clone()),
        (json!("/run/gcs/c/1/mounts/m0"), json!("/run/gcs/c/2/mounts/m0"))
    );
    assert_eq!(
        (disk(0)["readOnly"].clone(), disk(1)["readOnly"].clone()),
        (json!(true), json!(false))
    );
    for (n, one) in containers.iter().enumerate() {
        let members: Vec<_> = one.as_object().unwrap().keys().collect();
        assert_eq!(members, ["spec", "resources"]);
        assert_eq!(
            one["spec"]["root"]["path"],
            format!("/run/gcs/c/{}/rootfs", n + 1)
        );
    }
}

#[test]
fn the_table_has_a_heading_for_each_container_and_one_sum() {
    let scene = three();
    let said = plan(&scene, &[]);
    let table = said.text();
    let headings: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with("Container "))
        .collect();
    assert_eq!(
        headings,
        [
            "Container 0: web/config.json",
            "Container 1: db/config.json",
            "Container 2: logs/config.json"
        ]
    );
    let sums: Vec<_> = table.lines().filter(|line| line.starts_with("Used: ")).collect();
    assert_eq!(
        sums,
        ["Used: 3 of 256 SCSI disks, 2 of 64 VPMEM devices, 3 of any number of shares"]
    );
}

#[test]
fn hcs_adds_a_device_of_several_containers_once() {
    let documents = plan(&three(), &["--format", "hcs"]).json();
    let documents = documents.as_array().unwrap();
    let mut paths: Vec<_> = documents
        .iter()
        .filter_map(|document| document["ResourcePath"].as_str())
        .filter(|path| !path.ends_with("Shares"))
        .collect();
    let count = paths.len();
    paths.dedup();
    assert_eq!(
        (paths.len(), count),
        (5, 5),
        "two layers, two scratches, the disk"
    );
    let mounts: Vec<_> = documents
        .iter()
        .filter(|d| d["GuestRequest"]["ResourceType"] == "CombinedLayers")
        .map(|d| d["GuestRequest"]["Settings"]["ContainerRootPath"].clone())
        .collect();
    assert_eq!(mounts, ["/run/gcs/c/1/rootfs", "/run/gcs/c/2/rootfs"]);
}

#[test]
fn container_roots_count_in_hexadecimal() {
    let scene = Scene::new();
    scene.bundle("b", &rooted(json!([])));
    let arguments: Vec<_> = [["--bundle", "b"]; 17].concat();
    let document = scene
        .plan(&[arguments.as_slice(), &["--format", "json"]].concat())
        .json();
    let root = |n: usize| document["containers"][n]["resources"]["containerRoot"].clone();
    assert_eq!(
        (root(9), root(15), root(16)),
        (
            json!("/run/gcs/c/a"),
            json!("/run/gcs/c/10"),
            json!("/run/gcs/c/11")
        )
    );
}

#[test]
fn a_pod_that_does_not_fit_is_refused_with_what_each_container_wants() {
    let scene = three();
    let limits = [
        "--scsi-controllers",
        "0",
        "--vpmem-count",
        "1",
        "--format",
        "json",
    ];
    let error = plan(&scene, &limits).json_refusal();
    let message = "container 0 wants 3 SCSI disks, container 1 wants 1 SCSI disks: the utility VM has too few \
                   slots: 4 SCSI disks wanted, 0 of 0 free";
    assert_eq!(error, json!({"message": message, "container": 0}));
    assert_eq!(plan(&scene, &limits[..4]).refusal(), message);
}

#[test]
fn a_mount_that_conflicts_with_another_container_is_named() {
    let scene = three();
    let mounts = json!([
        mount("bind", "../srv", &[]),
        mount("virtual-disk", "../l/1/layer.vhd", &[])
    ]);
    scene.bundle("logs", &rooted(mounts));
    let error = plan(&scene, &["--format", "json"]).json_refusal();
    assert_eq!(
        (&error["container"], &error["mountIndex"]),
        (&json!(2), &json!(1)),
        "{error}"
    );
    let layer = scene.text("logs/../l/1/layer.vhd");
    let expected = format!("container 2: mount 1: {layer} is in use as a read-only layer");
    assert_eq!(error["message"], expected);
}

#[test]
fn a_container_that_cannot_be_planned_is_named_with_its_mount() {
    let scene = three();
    scene.bundle(
        "db",
        &rooted(json!([
            mount("bind", "../srv", &[]),
            mount("bind", "../gone", &[])
        ])),
    );
    let error = plan(&scene, &["--format", "json"]).json_refusal();
    assert_eq!(
        (&error["container"], &error["mountIndex"]),
        (&json!(1), &json!(1)),
        "{error}"
    );
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("container 1: mount 1: could not open bind mount target: "),
        "{message}"
    );

    std::fs::write(scene.path("logs/config.json"), "{\n  \"root\": 7\n}").unwrap();
    scene.bundle("db", &rooted(json!([])));
    let error = plan(&scene, &["--format", "json"]).json_refusal();
    assert_eq!(
        (&error["container"], &error["mountIndex"]),
        (&json!(2), &Value::Null),
        "{error}"
    );
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("container 2: ") && message.contains("line 2 column"),
        "{message}"
    );
}

#[test]
fn the_same_bundle_twice_wants_one_scratch_for_two() {
    let scene = three();
    let error = scene
        .plan(&["--bundle", "web", "--bundle", "web", "--format", "json"])
        .json_refusal();
    assert_eq!(error["container"], 1);
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("is in use as the scratch of /run/gcs/c/1/rootfs"),
        "{message}"
    );
}

#[test]
fn options_that_make_sense_for_one_container_only_are_wrong_usage_for_several() {
    let scene = three();
    for options in [&["--container-root", "/run/gcs/c/7"][..], &["--no-vm"]] {
        let said = plan(&scene, options);
        assert_eq!((said.status, said.stdout.as_str()), (Some(2), ""), "{options:?}");
        assert!(said.stderr.contains(options[0]), "{}", said.stderr);
    }
}
