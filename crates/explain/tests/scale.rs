//! Explaining costs linear time, in every format.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use cofferdam_explain::explain;
use cofferdam_ledger::address::Limits;
use cofferdam_plan::{Facts, FileFacts, FileId, FileKind, Plan, PlanRequest, Spec, plan, wanted};
use serde_json::json;

fn planned(mounts: usize) -> Plan {
    let entry = |n| json!({"destination": format!("/m{n}"), "type": "bind", "source": format!("/srv/{n}")});
    let entries: Vec<_> = (0..mounts).map(entry).collect();
    let document = json!({"root": {"path": "rootfs"}, "mounts": entries});
    let spec = Spec::parse(&document.to_string()).unwrap();
    let bundle = Path::new("/bundle");
    let mut facts = Facts::default();
    for (inode, path) in wanted(&spec, bundle).into_iter().enumerate() {
        let identity = FileId {
            device: 1,
            inode: inode as u64,
        };
        let found = FileFacts {
            kind: FileKind::Directory,
            identity,
            image_problem: None,
        };
        facts.insert(path, Ok(found));
    }
    let request = PlanRequest {
        spec: &spec,
        bundle,
        container_root: "/run/gcs/c/1",
        process_isolation: false,
    };
    plan(request, &facts).unwrap()
}

/// The fastest of a few runs.
fn time(mounts: usize) -> Duration {
    let plan = planned(mounts);
    let run = || {
        let begun = Instant::now();
        let explanation = explain(&plan, Limits::default(), false).unwrap();
        // One line each for the mounts and the root, a heading, an empty line and the limits.
        assert_eq!(explanation.table().lines().count(), mounts + 4);
        assert_eq!(explanation.hcs().len(), mounts + 1);
        assert!(!explanation.json().is_empty() && !explanation.hcs_json().is_empty());
        begun.elapsed()
    };
    (0..3).map(|_| run()).min().unwrap()
}

#[test]
fn ten_thousand_mounts_are_explained_in_linear_time() {
    let (few, many) = (time(1_000), time(10_000));
    println!("1,000 mounts: {few:?}; 10,000 mounts: {many:?}");
    // Quadratic growth would be a hundredfold; ten is linear, and the rest is for a busy machine.
    assert!(many < few * 40, "1,000 mounts took {few:?}, 10,000 took {many:?}");
}
