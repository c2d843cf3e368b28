//! Plans on a ledger: what is taken, what is given back, and how the cost grows.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use cofferdam_ledger::{Ledger, Next, ReserveError, Table, address::Limits};
use cofferdam_plan::{Facts, FileFacts, FileId, FileKind, Plan, PlanRequest, Spec, plan, wanted};
use cofferdam_reserve::{Reserved, reserve, reserve_pod};
use serde_json::{Value, json};

/// A plan on a host where every path is what it is wanted for; `.vhd`, `.vhdx` and `.img` are files.
fn planned(document: &Value, container_root: &str) -> Plan {
    let spec = Spec::parse(&document.to_string()).unwrap();
    let bundle = Path::new("/bundle");
    let mut facts = Facts::default();
    for path in wanted(&spec, bundle) {
        let name = path.to_str().unwrap();
        let is_file = [".vhd", ".vhdx", ".img"].iter().any(|end| name.ends_with(end));
        let kind = if is_file {
            FileKind::File { bytes: 1 }
        } else {
            FileKind::Directory
        };
        // One path, one file.
        let inode = name
            .bytes()
            .fold(7, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(byte));
        let identity = FileId { device: 1, inode };
        let found = FileFacts {
            kind,
            identity,
            image_problem: None,
        };
        facts.insert(path, Ok(found));
    }
    let request = PlanRequest {
        spec: &spec,
        bundle,
        container_root,
        process_isolation: false,
    };
    plan(request, &facts).unwrap()
}

fn layered(scratch: &str, mounts: Value) -> Value {
    json!({"windows": {"layerFolders": ["/l/2", "/l/1", scratch]}, "mounts": mounts})
}

fn disk(source: &str, options: &[&str]) -> Value {
    json!({"destination": "/d", "type": "virtual-disk", "source": source, "options": options})
}

fn share(source: &str) -> Value {
    json!({"destination": "/s", "type": "bind", "source": source})
}

/// Gives everything back; nothing was asked for yet, so there is no step.
fn give_back(ledger: &mut Ledger, reserved: &Reserved) {
    for lease in reserved.all().rev() {
        ledger.release(lease).unwrap();
        assert!(matches!(ledger.next(lease), Next::Gone));
    }
}

#[test]
fn every_need_has_its_lease_in_the_plans_order() {
    let mounts = json!([
        share("/a"),
        disk("/d1.img", &[]),
        share("/b"),
        disk("/d2.img", &["ro"])
    ]);
    let plan = planned(&layered("/l/s", mounts), "/c/1");
    let mut ledger = Ledger::new(Limits::default());
    let reserved = reserve(&mut ledger, &plan).unwrap();
    let at = |lease| ledger.guest_path(lease).unwrap().to_owned();
    let paths: Vec<_> = reserved.all().map(at).collect();
    let expected = [
        "/run/layers/p0",
        "/run/layers/p1",
        "/c/1/scratch",
        "/c/1/rootfs",
        "/c/1/mounts/m1",
        "/c/1/mounts/m3",
        "/c/1/mounts/m0",
        "/c/1/mounts/m2",
    ];
    assert_eq!(paths, expected);
    assert_eq!(reserved.overlay.unwrap().table(), Table::Overlays);
    assert_eq!((reserved.disks.len(), reserved.shares.len()), (2, 2));
    give_back(&mut ledger, &reserved);
    assert_eq!(ledger.view().slots, []);
}

#[test]
fn a_second_container_takes_a_reference_on_the_layers() {
    let mut ledger = Ledger::new(Limits::default());
    let first = reserve(&mut ledger, &planned(&layered("/l/s1", json!([])), "/c/1")).unwrap();
    let second = reserve(&mut ledger, &planned(&layered("/l/s2", json!([])), "/c/2")).unwrap();
    assert_eq!((ledger.view().vpmem.used, ledger.view().scsi.used), (2, 2));
    give_back(&mut ledger, &first);
    assert_eq!(ledger.guest_path(second.layers[0]), Some("/run/layers/p0"));
    give_back(&mut ledger, &second);
    assert_eq!(ledger.view().slots, []);
}

#[test]
fn a_refused_overlay_gives_everything_back() {
    let mut ledger = Ledger::new(Limits::default());
    let first = reserve(&mut ledger, &planned(&layered("/l/s1", json!([])), "/c/1")).unwrap();
    let before = ledger.view();
    let mounts = json!([share("/a"), disk("/d1.img", &[])]);
    let refusal = reserve(&mut ledger, &planned(&layered("/l/s2", mounts), "/c/1")).unwrap_err();
    assert_eq!(refusal.mount_index, None);
    assert!(refusal.to_string().contains("/c/1/rootfs"), "{refusal}");
    assert_eq!(ledger.view(), before);
    give_back(&mut ledger, &first);
}

#[test]
fn a_conflict_names_its_mount() {
    let mut ledger = Ledger::new(Limits::default());
    let _held = reserve(&mut ledger, &planned(&layered("/l/s1", json!([])), "/c/1")).unwrap();
    let before = ledger.view();
    let mounts = json!([share("/a"), disk("/l/1/layer.vhd", &[])]);
    let refusal = reserve(&mut ledger, &planned(&layered("/l/s2", mounts), "/c/2")).unwrap_err();
    assert_eq!(refusal.mount_index, Some(1));
    assert!(
        refusal.to_string().starts_with("mount 1: /l/1/layer.vhd"),
        "{refusal}"
    );
    assert_eq!(ledger.view(), before);
}

#[test]
fn more_disks_than_slots_are_refused_with_the_numbers() {
    let disks: Vec<_> = (0..300).map(|n| disk(&format!("/d{n}.img"), &[])).collect();
    let mut ledger = Ledger::new(Limits::default());
    let refusal = reserve(&mut ledger, &planned(&layered("/l/s", json!(disks)), "/c/1")).unwrap_err();
    let ReserveError::Full(shortages) = &refusal.source else {
        panic!("{refusal}");
    };
    let scsi = &shortages[0];
    assert_eq!(
        (scsi.table, scsi.wanted, scsi.free, scsi.total),
        (Table::Scsi, 301, 256, 256)
    );
    assert_eq!(shortages.len(), 1);
    assert_eq!(ledger.view().slots, []);
}

#[test]
fn all_256_disks_of_a_vm_can_be_used() {
    let disks: Vec<_> = (0..255).map(|n| disk(&format!("/d{n}.img"), &[])).collect();
    let mut ledger = Ledger::new(Limits::default());
    let _held = reserve(&mut ledger, &planned(&layered("/l/s", json!(disks)), "/c/1")).unwrap();
    assert_eq!((ledger.view().scsi.used, ledger.view().scsi.total), (256, 256));
}

#[test]
fn a_pod_is_reserved_as_its_containers_would_be_one_after_another() {
    let plans = [
        planned(&layered("/l/s1", json!([disk("/d.img", &[])])), "/c/1"),
        planned(
            &layered("/l/s2", json!([disk("/d.img", &["ro"]), share("/a")])),
            "/c/2",
        ),
    ];
    let (mut together, mut alone) = (Ledger::new(Limits::default()), Ledger::new(Limits::default()));
    let pod = reserve_pod(&mut together, &plans).unwrap();
    let each: Vec<_> = plans
        .iter()
        .map(|plan| reserve(&mut alone, plan).unwrap())
        .collect();
    assert_eq!(together.view(), alone.view());
    assert_eq!(pod, each);
    for reserved in &pod {
        give_back(&mut together, reserved);
    }
    assert_eq!(together.view().slots, []);
}

#[test]
fn a_refused_pod_leaves_the_ledger_as_it_was_whichever_of_its_containers_is_at_fault() {
    let held = planned(&layered("/l/s1", json!([disk("/d.img", &["ro"])])), "/c/1");
    let fits = planned(
        &layered("/l/s2", json!([disk("/d.img", &[]), share("/a")])),
        "/c/2",
    );
    let conflicts = planned(&layered("/l/s3", json!([disk("/l/2/layer.vhd", &[])])), "/c/3");
    let too_large: Vec<_> = (0..300).map(|n| disk(&format!("/d{n}.img"), &[])).collect();
    let too_large = planned(&layered("/l/s4", json!(too_large)), "/c/4");
    for at_fault in [&conflicts, &too_large] {
        for order in [
            [at_fault, &fits].map(Plan::clone),
            [&fits, at_fault].map(Plan::clone),
        ] {
            let mut ledger = Ledger::new(Limits::default());
            let _held = reserve(&mut ledger, &held).unwrap();
            let before = ledger.view();
            let refusal = reserve_pod(&mut ledger, &order).unwrap_err();
            let index = order
                .iter()
                .position(|plan| plan.container_root == at_fault.container_root);
            assert_eq!(Some(refusal.container), index, "{refusal}");
            assert_eq!(ledger.view(), before, "{refusal}");
        }
    }
}

/// The fastest of a few runs of planning and reserving so many mounts.
fn time(mounts: usize) -> Duration {
    let shares: Vec<_> = (0..mounts).map(|n| share(&format!("/srv/{n}"))).collect();
    let document = layered("/l/s", json!(shares));
    let run = || {
        let begun = Instant::now();
        let plan = planned(&document, "/c/1");
        let mut ledger = Ledger::new(Limits::default());
        let reserved = reserve(&mut ledger, &plan).unwrap();
        assert_eq!(reserved.shares.len(), mounts);
        begun.elapsed()
    };
    (0..3).map(|_| run()).min().unwrap()
}

#[test]
fn ten_thousand_mounts_cost_linear_time() {
    let (few, many) = (time(1_000), time(10_000));
    println!("1,000 mounts: {few:?}; 10,000 mounts: {many:?}");
    // Quadratic growth would be a hundredfold; ten is linear, and the rest is for a busy machine.
    assert!(many < few * 40, "1,000 mounts took {few:?}, 10,000 took {many:?}");
    assert!(many < Duration::from_secs(10), "10,000 mounts took {many:?}");
}
