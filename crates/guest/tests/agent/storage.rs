//! `ModifySettings` without the devices of a VM: refusals, and removals of what is not there.

use cofferdam_protocol::{HResult, message as m};
use serde_json::json;

use crate::agent::Agent;

#[test]
fn removing_what_was_never_added_succeeds_any_number_of_times() {
    let mut agent = Agent::ready();
    for _ in 0..2 {
        for (resource, settings) in [
            (
                "MappedVirtualDisk",
                json!({"MountPath": "/run/gcs-agent-test/m0", "Lun": 3}),
            ),
            ("MappedVirtualDisk", json!({})),
            ("SCSIDevice", json!({"Controller": 3, "Lun": 63})),
            ("VPMemDevice", json!({"MountPath": "/tmp/gcs-agent-test-p0"})),
            (
                "CombinedLayers",
                json!({"ContainerRootPath": "/run/gcs-agent-test/rootfs"}),
            ),
            (
                "MappedDirectory",
                json!({"MountPath": "/run/gcs-agent-test/m1", "Port": 564, "ShareName": "1"}),
            ),
        ] {
            agent.modify("Remove", resource, settings).ok();
        }
    }
}

#[test]
fn a_mount_of_a_container_that_is_not_there_is_refused_and_its_removal_is_done() {
    let mut agent = Agent::start();
    let capabilities = agent.negotiate(4, 4).ok()["Capabilities"]["GuestDefinedCapabilities"].clone();
    assert_eq!(capabilities["CofferdamContainerMounts"], true);
    let mut modify = |container: &str, kind: &str, destination: &str| {
        let settings = json!({"Source": "/run/gcs/c/1/mounts/m1", "Destination": destination});
        let request = json!({
            "RequestType": kind,
            "ResourceType": "CofferdamContainerMount",
            "Settings": settings,
        });
        let body = json!({"ContainerId": container, "Request": request});
        agent.call(m::MODIFY_SETTINGS, &body)
    };
    modify("c1", "Add", "/data").failed(HResult::CONTAINER_NOT_FOUND);
    for _ in 0..2 {
        modify("c1", "Remove", "/data").ok();
    }
    for destination in ["/proc/x", "/dev", "/sys/fs", "/", "", "data", "/a/../b"] {
        for kind in ["Add", "Remove"] {
            modify("c1", kind, destination).failed(HResult::INVALID_ARGUMENT);
        }
    }
    let text =
        modify(cofferdam_protocol::NULL_CONTAINER_ID, "Add", "/data").failed(HResult::INVALID_ARGUMENT);
    assert!(
        text.contains("is for a container, not for the VM itself"),
        "{text}"
    );
    modify("c1", "Update", "/data").failed(HResult::CONTAINER_NOT_FOUND);
}

#[test]
fn paths_outside_the_rules_are_refused_for_every_resource() {
    let mut agent = Agent::ready();
    for path in [
        "relative",
        "/run/../etc",
        "/",
        "/proc/x",
        "/run/cofferdam/x",
        "/a//b",
    ] {
        for (resource, member) in [
            ("VPMemDevice", "MountPath"),
            ("MappedDirectory", "MountPath"),
            ("CombinedLayers", "ContainerRootPath"),
        ] {
            for kind in ["Add", "Remove"] {
                agent
                    .modify(kind, resource, json!({member: path}))
                    .failed(HResult::INVALID_ARGUMENT);
            }
        }
        agent
            .modify("Remove", "MappedVirtualDisk", json!({"MountPath": path}))
            .failed(HResult::INVALID_ARGUMENT);
    }
}

#[test]
fn unknown_resources_and_kinds_are_named() {
    let mut agent = Agent::ready();
    let message = agent
        .modify("Add", "Teapot", json!({}))
        .failed(HResult::INVALID_ARGUMENT);
    assert_eq!(message, "invalid ResourceType \"Teapot\"");
    let message = agent
        .modify("Update", "CombinedLayers", json!({}))
        .failed(HResult::INVALID_ARGUMENT);
    assert_eq!(message, "invalid RequestType Update for CombinedLayers");
    agent
        .modify("Add", "SCSIDevice", json!({}))
        .failed(HResult::INVALID_ARGUMENT);
    agent
        .modify("Update", "Network", json!({}))
        .failed(HResult::INVALID_ARGUMENT);
    let message = agent
        .modify("Add", "Network", json!({}))
        .failed(HResult::INVALID_ARGUMENT);
    assert_eq!(message, "MacAddress: \"\" is no hardware address");
    agent
        .modify(
            "Add",
            "Network",
            json!({"MacAddress": "52-54-00-00-00-01", "PolicyBasedRouting": true}),
        )
        .failed(HResult::NOT_IMPLEMENTED);
    agent
        .modify("Add", "MappedVirtualDisk", json!({"Lun": 999}))
        .failed(HResult::INVALID_JSON);
    agent
        .call_vm(m::MODIFY_SETTINGS, json!({"Request": "text"}))
        .failed(HResult::INVALID_JSON);
}

#[test]
fn a_network_adapter_that_does_not_come_is_waited_for_and_named() {
    let mut agent = Agent::ready();
    let settings =
        json!({"ID": "N", "MacAddress": "52-54-00-C0-FF-EE", "IPAddress": "10.0.2.15", "PrefixLength": 24});
    let message = agent
        .modify("Add", "Network", settings.clone())
        .failed(HResult::FAIL);
    assert_eq!(
        message,
        "network adapter 52:54:00:c0:ff:ee did not appear within 5000 ms: no interface has this hardware address"
    );
    // It is known to nobody, so there is nothing to do.
    agent.modify("Remove", "Network", settings).ok();
}

#[test]
fn a_disk_that_does_not_come_is_waited_for_and_named() {
    let mut agent = Agent::ready();
    let start = std::time::Instant::now();
    let settings = json!({"MountPath": "/run/gcs-agent-test/m0", "Controller": 2, "Lun": 9});
    let message = agent
        .modify("Add", "MappedVirtualDisk", settings)
        .failed(HResult::FAIL);
    assert!(
        message.starts_with("SCSI disk 2:9 did not appear within 5000 ms: "),
        "{message}"
    );
    assert!(start.elapsed() >= std::time::Duration::from_secs(5));
    assert!(!std::path::Path::new("/run/gcs-agent-test/m0").exists());
}

#[test]
fn a_share_nobody_serves_leaves_no_mount_point() {
    let mut agent = Agent::ready();
    let settings = json!({"MountPath": "/tmp/gcs-agent-test-share", "Port": 99, "ShareName": "1"});
    let message = agent
        .modify("Add", "MappedDirectory", settings)
        .failed(HResult::FAIL);
    assert!(
        message.starts_with("dialling port 99 of the host for share 1: "),
        "{message}"
    );
    assert!(!std::path::Path::new("/tmp/gcs-agent-test-share").exists());
}

#[test]
fn a_layer_that_is_not_there_is_named_and_nothing_is_left() {
    let mut agent = Agent::ready();
    let settings = json!({
        "ContainerRootPath": "/tmp/gcs-agent-test-root",
        "Layers": [{"Path": "/tmp/gcs-agent-test-no-layer"}],
    });
    let message = agent
        .modify("Add", "CombinedLayers", settings)
        .failed(HResult::FAIL);
    assert!(
        message.starts_with("layer /tmp/gcs-agent-test-no-layer: No such file"),
        "{message}"
    );
    assert!(!std::path::Path::new("/tmp/gcs-agent-test-root").exists());
}
