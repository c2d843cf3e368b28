//! Which namespaces a container has of its own, and which it shares.
//!
//! Paths of namespaces are the host's and mean nothing in the VM. What a pod's container would have shared with its sandbox
//! on a host, it shares with it here; the network namespace is the VM itself.

use serde_json::{Map, Value};

/// Annotation that asks for a network namespace of the container's own: without adapters, whatever the VM has.
const NETWORK: &str = "io.cofferdam.network";
/// Kinds that a container can share with its sandbox, as the kernel names them in /proc.
const SHARED: [&str; 3] = ["ipc", "uts", "pid"];

/// Whether a document asks for a network namespace of the container's own.
pub(super) fn wants_own_network(spec: &Map<String, Value>) -> bool {
    let annotation = spec
        .get("annotations")
        .and_then(|annotations| annotations.get(NETWORK));
    annotation.and_then(Value::as_str) == Some("own")
}

/// Whether it is a host name of the container's own.
pub(super) fn is_own_name(namespace: &Value) -> bool {
    namespace["type"] == "uts" && namespace.get("path").is_none()
}

/// Completes a document's `linux.namespaces`. A path means the sandbox's namespace, whose init has the process number
/// `sandbox`; without one a new namespace is made.
pub(super) fn complete(
    namespaces: &mut Value,
    own_network: bool,
    sandbox: Option<u32>,
    removed: &mut Vec<String>,
) {
    let Some(namespaces) = namespaces.as_array_mut() else {
        return;
    };
    if !own_network {
        // The VM is what a network namespace is on a host: its adapters are its containers'. A pod's share them.
        namespaces.retain(|namespace| namespace.get("type").and_then(Value::as_str) != Some("network"));
    }
    for namespace in namespaces.iter_mut().filter_map(Value::as_object_mut) {
        let Some(path) = namespace.remove("path").filter(|path| path.as_str() != Some("")) else {
            continue;
        };
        let kind = namespace.get("type").and_then(Value::as_str).unwrap_or_default();
        match sandbox {
            Some(sandbox) if SHARED.contains(&kind) => {
                let path = format!("/proc/{sandbox}/ns/{kind}");
                namespace.insert("path".to_owned(), path.into());
            }
            _ => removed.push(format!(
                "path {path} of the {kind} namespace: it is of the host; a new one is made"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn completed(namespaces: Value, own_network: bool, sandbox: Option<u32>) -> (Value, Vec<String>) {
        let (mut namespaces, mut removed) = (namespaces, Vec::new());
        complete(&mut namespaces, own_network, sandbox, &mut removed);
        (namespaces, removed)
    }

    #[test]
    fn a_container_has_the_vms_network_unless_its_own_is_asked_for() {
        let asked = json!({ "annotations": { NETWORK: "own" } });
        assert!(wants_own_network(asked.as_object().unwrap()));
        assert!(!wants_own_network(&Map::new()));
        let namespaces =
            json!([{"type": "network", "path": "/var/run/netns/x"}, {"type": "network"}, {"type": "pid"}]);
        let (shared, removed) = completed(namespaces.clone(), false, None);
        assert_eq!((shared, removed.len()), (json!([{"type": "pid"}]), 0));
        let (own, removed) = completed(namespaces, true, None);
        assert_eq!(
            own,
            json!([{"type": "network"}, {"type": "network"}, {"type": "pid"}])
        );
        assert_eq!(removed.len(), 1);
    }

    #[test]
    fn a_pods_container_shares_with_its_sandbox_what_it_would_on_a_host() {
        let namespaces = json!([
            {"type": "ipc", "path": "/proc/77/ns/ipc"},
            {"type": "uts", "path": "/proc/77/ns/uts"},
            {"type": "pid"},
            {"type": "user", "path": "/proc/77/ns/user"},
        ]);
        let (shared, removed) = completed(namespaces.clone(), false, Some(9));
        assert_eq!(
            shared,
            json!([
                {"type": "ipc", "path": "/proc/9/ns/ipc"},
                {"type": "uts", "path": "/proc/9/ns/uts"},
                {"type": "pid"},
                {"type": "user"},
            ])
        );
        assert_eq!(removed.len(), 1);
        let (alone, removed) = completed(namespaces, false, None);
        assert!(
            alone
                .as_array()
                .unwrap()
                .iter()
                .all(|namespace| namespace.get("path").is_none())
        );
        assert_eq!(removed.len(), 3);
    }
}
