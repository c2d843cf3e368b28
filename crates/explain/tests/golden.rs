//! Each format of a plan, held to the files of `golden/`.
//!
//! After a wanted change, `UPDATE_GOLDEN=1 cargo test -p cofferdam-explain` writes them anew; read the difference.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{fs, io, path::Path};

use cofferdam_explain::{Explanation, RefusalDocument, explain};
use cofferdam_ledger::address::Limits;
use cofferdam_plan::{Facts, FileFacts, FileId, FileKind, Plan, PlanRequest, Spec, plan};
use serde_json::{Value, json};

const GIB: u64 = 1 << 30;

/// A host with a few files of every kind.
fn facts() -> Facts {
    let mut facts = Facts::default();
    let file = |bytes| FileKind::File { bytes };
    let files = [
        ("/l/2/layer.vhd", file(GIB)),
        ("/l/1/layer.vhd", file(8 * GIB)),
        ("/l/s/sandbox.vhdx", file(GIB)),
        ("/bundle/rootfs", FileKind::Directory),
        ("/etc/hosts", file(12)),
        ("/srv/data", FileKind::Directory),
        ("/d.vhdx", file(GIB)),
        ("/dev/sdb", FileKind::BlockDevice),
    ];
    for (inode, (path, kind)) in files.into_iter().enumerate() {
        let identity = FileId {
            device: 1,
            inode: inode as u64,
        };
        let found = FileFacts {
            kind,
            identity,
            image_problem: None,
        };
        facts.insert(path.into(), Ok(found));
    }
    facts.insert("/gone".into(), Err(io::Error::from(io::ErrorKind::NotFound)));
    facts
}

/// Every kind of mount there is.
fn mounts() -> Value {
    json!([
        {"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["rbind", "RO"]},
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/data", "type": "bind", "source": "/srv/data"},
        {"destination": "/disk", "type": "automanage-virtual-disk", "source": "/d.vhdx"},
        {"destination": "/again", "type": "virtual-disk", "source": "/d.vhdx", "options": ["ro"]},
        {"destination": "/raw", "type": "physical-disk", "source": "/dev/sdb", "options": ["ro"]},
        {"destination": "/pod", "type": "bind", "source": "sandbox://pod"},
        {"destination": "/more", "type": "bind", "source": "/srv/data"},
    ])
}

fn layered() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {"args": ["sh"], "x-unknown": [1, null]},
        "mounts": mounts(),
        "windows": {"layerFolders": ["/l/2", "/l/1", "/l/s"]},
    })
}

fn planned(spec: &Value, process_isolation: bool) -> Result<Plan, cofferdam_plan::PlanError> {
    let spec = Spec::parse(&spec.to_string()).unwrap();
    let request = PlanRequest {
        spec: &spec,
        bundle: Path::new("/bundle"),
        container_root: "/run/gcs/c/1",
        process_isolation,
    };
    plan(request, &facts())
}

fn explained(spec: &Value, process_isolation: bool) -> Explanation {
    let plan = planned(spec, process_isolation).unwrap();
    explain(&plan, Limits::default(), process_isolation).unwrap()
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
fn the_table_shows_each_layer_and_mount() {
    holds("layered.txt", &explained(&layered(), false).table());
}

#[test]
fn the_json_document_has_the_members_of_the_contract_in_their_order() {
    holds(
        "layered.json",
        &format!("{}\n", explained(&layered(), false).json()),
    );
}

#[test]
fn the_hcs_documents_stand_in_an_order_they_may_be_sent_in() {
    let explanation = explained(&layered(), false);
    holds("layered.hcs.json", &format!("{}\n", explanation.hcs_json()));
    let documents: Vec<Value> = serde_json::from_str(&explanation.hcs_json()).unwrap();
    let place = |document: &Value, member: &str| document["GuestRequest"]["Settings"][member].clone();
    let overlay = documents
        .iter()
        .position(|d| d["GuestRequest"]["ResourceType"] == "CombinedLayers")
        .unwrap();
    let mounted: Vec<_> = documents[..overlay]
        .iter()
        .map(|d| place(d, "MountPath"))
        .collect();
    for layer in place(&documents[overlay], "Layers").as_array().unwrap() {
        assert!(mounted.contains(&layer["Path"]), "{layer} is not mounted yet");
    }
    assert!(mounted.contains(&place(&documents[overlay], "ScratchPath")));
}

#[test]
fn a_shared_root_has_no_layers_no_scratch_and_no_mount_index() {
    let spec = json!({"root": {"path": "rootfs", "readonly": true}});
    let explanation = explained(&spec, false);
    holds("shared_root.txt", &explanation.table());
    holds("shared_root.json", &format!("{}\n", explanation.json()));
    holds("shared_root.hcs.json", &format!("{}\n", explanation.hcs_json()));
}

#[test]
fn without_a_vm_there_are_no_devices_disks_or_shares() {
    let explanation = explained(&layered(), true);
    holds("no_vm.txt", &explanation.table());
    holds("no_vm.json", &format!("{}\n", explanation.json()));
    assert_eq!(explanation.hcs_json(), "[]");
    assert!(!explanation.json().contains("\"device\""));
    assert_eq!(explanation.spec["mounts"], mounts());
    assert_eq!(
        (explanation.limits.scsi.used, explanation.limits.vpmem.used),
        (0, 0)
    );
}

#[test]
fn a_refused_plan_names_its_mount() {
    let mut spec = layered();
    spec["mounts"][3]["source"] = json!("/gone");
    let refusal = RefusalDocument::from(&planned(&spec, false).unwrap_err());
    holds("refused_mount.json", &format!("{}\n", refusal.json()));
    assert_eq!(refusal.mount_index(), Some(3));
}

#[test]
fn a_text_that_is_no_spec_is_refused_with_line_and_column() {
    for (name, text) in [
        ("not_json.json", "{\n  \"root\": ,\n}"),
        ("not_a_spec.json", "{\n  \"mounts\": 7\n}"),
    ] {
        let refusal = RefusalDocument::from(&Spec::parse(text).unwrap_err());
        assert!(
            refusal.message().contains("line 2 column"),
            "{}",
            refusal.message()
        );
        holds(name, &format!("{}\n", refusal.json()));
    }
}

#[test]
fn what_does_not_fit_is_refused_with_everything_that_is_missing() {
    let plan = planned(&layered(), false).unwrap();
    let limits = Limits {
        scsi_controllers: 0,
        ..Limits::default()
    };
    let refusal = RefusalDocument::from(&explain(&plan, limits, false).unwrap_err());
    holds("too_few_slots.json", &format!("{}\n", refusal.json()));
    assert_eq!(refusal.mount_index(), None);
}

#[test]
fn a_hostile_path_cannot_write_to_the_terminal() {
    let mut spec = layered();
    spec["mounts"][1]["source"] = json!("a\u{1b}[2J\nb");
    let table = explained(&spec, false).table();
    assert!(
        !table.contains('\u{1b}') && table.contains("a\\u{1b}[2J\\nb"),
        "{table}"
    );
}
