//! What `cofferdam inspect`, `events` and `fsck` are told of a VM that containerd manages.

use std::time::Duration;

use cofferdam_observe::{CheckReport, Machine, Subscription, types};
use cofferdam_owner::control::{Question, ask};
use serde_json::Value;

use crate::ctr::{run, started, task};

/// For what must happen.
const SOON: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_vm_under_containerd_tells_who_holds_what_and_what_happens() {
    let containerd = started();
    let output = run(&containerd, &["-d"], "c", &["sleep", "600"])
        .output()
        .unwrap();
    containerd.succeeded(&output);
    let owner = containerd.path("owners").join("default-c");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();

    let machine: Machine = ask(&owner, &Question::Inspect).unwrap();
    let names: Vec<_> = machine
        .containers
        .iter()
        .map(|container| container.id.as_str())
        .collect();
    assert_eq!(
        (names, machine.containers[0].init.status.as_str()),
        (vec!["c"], "running")
    );
    for device in &machine.devices {
        assert_eq!(device.references, device.held_by.len(), "{device:?}");
    }
    let items = machine.devices.iter().flat_map(|device| &device.held_by);
    assert!(
        items
            .clone()
            .any(|holder| holder.container == "c" && holder.item == "root"),
        "{machine:?}"
    );
    let report: CheckReport = ask(&owner, &Question::Check { repair: false }).unwrap();
    assert_eq!(report, CheckReport::default());
    let destination = "/d".to_owned();
    let refused = ask::<Value>(&owner, &Question::MountRemove { destination }).unwrap_err();
    assert_eq!(refused.to_string(), "containerd manages its containers");

    let (mut events, past) = runtime.block_on(Subscription::open(&owner, 0)).unwrap();
    let kinds: Vec<_> = past.events.iter().map(|told| told.kind.as_str()).collect();
    assert_eq!(kinds, [types::CREATE, types::START]);
    containerd.succeeded(&task(&containerd, &["kill", "-s", "KILL", "c"]));
    let mut next = || {
        let told = async { tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap() };
        runtime
            .block_on(told)
            .map(|told| (told.kind, told.attributes["exitStatus"].as_u64()))
    };
    assert_eq!(next(), Some((types::EXIT.to_owned(), Some(137))));
    task(&containerd, &["delete", "c"]);
    assert_eq!(next(), Some((types::DELETE.to_owned(), Some(137))));
    assert_eq!(next(), None);
    containerd.assert_nothing_left();
}
