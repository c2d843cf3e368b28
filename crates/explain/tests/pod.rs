//! Several containers of one VM, explained together: held to the files of `golden/`, as `golden.rs` does for one.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{collections::BTreeMap, fs, path::Path};

use cofferdam_explain::{ExplainPodError, PodExplanation, RefusalDocument, explain, explain_pod};
use cofferdam_ledger::address::Limits;
use cofferdam_plan::{Facts, FileFacts, FileId, FileKind, Plan, PlanRequest, Spec, plan, wanted};
use serde_json::{Value, json};

/// A plan on a host where `.vhd` and `.vhdx` are files and everything else is a directory; one path, one file.
fn planned(document: &Value, number: usize) -> Plan {
    let spec = Spec::parse(&document.to_string()).unwrap();
    let bundle = Path::new("/bundle");
    let mut facts = Facts::default();
    for path in wanted(&spec, bundle) {
        let name = path.to_str().unwrap();
        let is_file = [".vhd", ".vhdx", ".conf"].iter().any(|end| name.ends_with(end));
        let kind = if is_file {
            FileKind::File { bytes: 4096 }
        } else {
            FileKind::Directory
        };
        let mix = |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte));
        let identity = FileId {
            device: 1,
            inode: name.bytes().fold(7, mix),
        };
        let image_problem = None;
        let found = FileFacts {
            kind,
            identity,
            image_problem,
        };
        facts.insert(path, Ok(found));
    }
    let request = PlanRequest {
        spec: &spec,
        bundle,
        container_root: &format!("/run/gcs/c/{:x}", number + 1),
        process_isolation: false,
    };
    plan(request, &facts).unwrap()
}

fn pod(documents: &[Value]) -> Vec<Plan> {
    documents
        .iter()
        .enumerate()
        .map(|(n, document)| planned(document, n))
        .collect()
}

fn explained(documents: &[Value]) -> PodExplanation {
    explain_pod(&pod(documents), Limits::default()).unwrap()
}

fn refused(documents: &[Value], limits: Limits) -> ExplainPodError {
    explain_pod(&pod(documents), limits).unwrap_err()
}

fn mount(kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": "/m", "type": kind, "source": source, "options": options})
}

fn layered(scratch: &str, mounts: Value) -> Value {
    json!({"windows": {"layerFolders": ["/l/2", "/l/1", scratch]}, "mounts": mounts})
}

/// Two containers with the same layers, a disk that one writes and the other reads, and a directory of both; the third
/// has a root of its own.
fn web_db_and_logs() -> [Value; 3] {
    let disk = "/data.vhdx";
    let web = [
        mount("virtual-disk", disk, &["ro"]),
        mount("bind", "/srv", &["ro"]),
        mount("bind", "/etc/a.conf", &[]),
    ];
    let db = [
        mount("bind", "/srv", &["ro"]),
        mount("virtual-disk", disk, &[]),
        mount("bind", "/etc/b.conf", &[]),
    ];
    [
        layered("/s/web", json!(web)),
        layered("/s/db", json!(db)),
        json!({"root": {"path": "/logs", "readonly": true}, "mounts": [mount("bind", "/srv", &["ro"])]}),
    ]
}

fn holds(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{name} differs");
}

#[test]
fn each_format_has_its_golden_file() {
    let pod = explained(&web_db_and_logs());
    let names = ["web", "db", "l\u{1b}ogs"].map(str::to_owned);
    holds("pod.txt", &pod.table(&names));
    holds("pod.json", &format!("{}\n", pod.json()));
    holds("pod.hcs.json", &format!("{}\n", pod.hcs_json()));
}

#[test]
fn what_containers_share_counts_once() {
    let pod = explained(&web_db_and_logs());
    // Two scratches and the data; two layers.
    assert_eq!((pod.limits.scsi.used, pod.limits.vpmem.used), (3, 2));
    let [web, db] = [0, 1].map(|n| &pod.containers[n].resources);
    assert_eq!(web.layers, db.layers);
    assert_eq!(web.disks[0].device, db.disks[0].device);
    assert_ne!(web.disks[0].guest_path, db.disks[0].guest_path);
    // `/srv` of all three, `/etc` for one file each, `/logs`.
    assert!(pod.table(&[]).contains("4 of any number of shares"));
    let rows = pod.table(&[]);
    assert_eq!(
        rows.matches("a reference").count(),
        5,
        "two layers, a disk, two directories\n{rows}"
    );
}

#[test]
fn a_device_is_added_by_one_document_before_anything_is_mounted_from_it() {
    let pod = explained(&web_db_and_logs());
    let documents: Vec<Value> = serde_json::from_str(&pod.hcs_json()).unwrap();
    let mut added: BTreeMap<String, usize> = BTreeMap::new();
    let mut mounted = Vec::new();
    for document in &documents {
        if let Some(path) = document["ResourcePath"].as_str() {
            let key = format!("{path} {}", document["Settings"]["Name"]);
            *added.entry(key).or_default() += 1;
        }
        let (kind, settings) = (
            &document["GuestRequest"]["ResourceType"],
            &document["GuestRequest"]["Settings"],
        );
        if kind == "CombinedLayers" {
            for layer in settings["Layers"].as_array().unwrap() {
                assert!(mounted.contains(&layer["Path"]), "{layer} is not mounted yet");
            }
            assert!(mounted.contains(&settings["ScratchPath"]), "{document}");
        }
        let lun = settings["Lun"].as_u64().unwrap_or_default();
        let disk = format!("VirtualMachine/Devices/Scsi/0/Attachments/{lun} null");
        assert!(
            kind != "MappedVirtualDisk" || added.contains_key(&disk),
            "{document} before its disk"
        );
        mounted.push(settings["MountPath"].clone());
    }
    assert!(added.values().all(|count| *count == 1), "{added:?}");
    // Three disks, two layers, four shares.
    assert_eq!(added.len(), 9, "{added:?}");
    let data = documents
        .iter()
        .find(|d| d["Settings"]["Path"] == "/data.vhdx")
        .unwrap();
    assert!(
        data["Settings"]["ReadOnly"].is_null(),
        "attached writable although its reader comes first: {data}"
    );
}

#[test]
fn a_pod_of_one_takes_what_the_container_takes() {
    let document = &web_db_and_logs()[0];
    let (alone, pod) = (
        explain(&planned(document, 0), Limits::default(), false).unwrap(),
        explained(std::slice::from_ref(document)),
    );
    assert_eq!(pod.containers[0].spec, alone.spec);
    assert_eq!(pod.containers[0].resources, alone.resources);
    assert_eq!((&pod.limits, pod.hcs()), (&alone.limits, alone.hcs()));
}

#[test]
fn what_does_not_fit_is_said_of_all_containers_together() {
    let disks =
        |from: usize, to: usize| (from..to).map(|n| mount("virtual-disk", &format!("/d{n}.vhdx"), &[]));
    // 50 disks that both use, 100 of each alone, and a scratch each.
    let one = layered("/s/1", disks(0, 150).collect());
    let two = layered("/s/2", disks(0, 50).chain(disks(150, 250)).collect());
    let three = layered("/s/3", json!([]));
    let limits = Limits {
        scsi_controllers: 3,
        ..Limits::default()
    };
    let error = refused(&[one, two, three], limits);
    let expected = "container 0 wants 151 SCSI disks, container 1 wants 101 SCSI disks, \
                    container 2 wants 1 SCSI disks: the utility VM has too few slots: \
                    253 SCSI disks wanted, 192 of 192 free";
    assert_eq!(error.to_string(), expected);
    assert_eq!(
        (error.container(), error.mount_index()),
        (Some(1), None),
        "the first that does not fit"
    );
    let document: Value = serde_json::from_str(&RefusalDocument::from(&error).json()).unwrap();
    assert_eq!(document, json!({"error": {"message": expected, "container": 1}}));
}

#[test]
fn layers_overflow_to_scsi_in_the_order_of_the_containers() {
    let limits = Limits {
        vpmem_devices: 3,
        ..Limits::default()
    };
    let second = json!({"windows": {"layerFolders": ["/l/4", "/l/3", "/l/1", "/s/2"]}});
    let pod = explain_pod(&pod(&[layered("/s/1", json!([])), second]), limits).unwrap();
    assert_eq!((pod.limits.vpmem.used, pod.limits.scsi.used), (3, 3));
    let devices: Vec<_> = pod.containers[1]
        .resources
        .layers
        .iter()
        .map(|layer| layer.device.unwrap().to_string())
        .collect();
    assert_eq!(devices, ["VPMEM 2", "SCSI 0:1", "VPMEM 1"]);
}

#[test]
fn a_shortage_of_layers_that_overflow_counts_a_shared_layer_once() {
    let limits = Limits {
        scsi_controllers: 0,
        vpmem_devices: 1,
        ..Limits::default()
    };
    let error = refused(&[layered("/s/1", json!([])), layered("/s/2", json!([]))], limits);
    // Layer 1 is wanted by both and lacks one slot; each lacks its scratch.
    let expected = "container 0 wants 2 SCSI disks, container 1 wants 1 SCSI disks: the utility VM has too few \
                    slots: 3 SCSI disks wanted, 0 of 0 free";
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.container(), Some(0));
}

#[test]
fn a_conflict_names_the_container_and_its_mount() {
    let taken = mount("virtual-disk", "/l/1/layer.vhd", &[]);
    let other = json!({"root": {"path": "/logs"}, "mounts": [mount("bind", "/srv", &[]), taken]});
    let error = refused(&[layered("/s/1", json!([])), other], Limits::default());
    assert_eq!((error.container(), error.mount_index()), (Some(1), Some(1)));
    let refusal = RefusalDocument::from(&error);
    assert!(
        refusal
            .message()
            .starts_with("container 1: mount 1: /l/1/layer.vhd is in use as a read-only layer"),
        "{}",
        refusal.message()
    );
    assert_eq!(refusal.container(), Some(1));
}

#[test]
fn two_containers_on_one_scratch_are_refused() {
    let error = refused(
        &[layered("/s/1", json!([])), layered("/s/1", json!([]))],
        Limits::default(),
    );
    assert_eq!((error.container(), error.mount_index()), (Some(1), None));
    let text = error.to_string();
    assert!(
        text.starts_with("container 1: /s/1/sandbox.vhdx is in use as the scratch of /run/gcs/c/1/rootfs"),
        "{text}"
    );
}

#[test]
fn a_conflict_is_said_even_where_the_slots_are_too_few_as_well() {
    let limits = Limits {
        scsi_controllers: 0,
        ..Limits::default()
    };
    let conflict = json!({
        "root": {"path": "/logs"},
        "mounts": [mount("virtual-disk", "/l/1/layer.vhd", &[])],
    });
    let error = refused(&[layered("/s/1", json!([])), conflict], limits);
    assert_eq!((error.container(), error.mount_index()), (Some(1), Some(0)));
}
