//! Which namespaces a container has of its own, and which it shares.
//!
//! Paths of namespaces are the host's and mean nothing in the VM. What a pod's container would have shared with its sandbox
//! on a host, it shares with it here. The network namespace is the network's: `share_namespace` there.

use serde_json::Value;

/// Kinds that a container can share with its sandbox, as the kernel names them in /proc.
const SHARED: [&str; 3] = ["ipc", "uts", "pid"];

/// Whether it is a host name of the container's own.
pub(super) fn is_own_name(namespace: &Value) -> bool {
    namespace["type"] == "uts" && namespace.get("path").is_none()
}

/// Completes a document's `linux.namespaces`. A path means the sandbox's namespace, whose init has the process number
/// `sandbox`; without one a new namespace is made.
pub(super) fn complete(namespaces: &mut Value, sandbox: Option<u32>, removed: &mut Vec<String>) {
    let list = namespaces.as_array_mut().into_iter().flatten();
    for namespace in list.filter_map(Value::as_object_mut) {
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

    fn completed(namespaces: Value, sandbox: Option<u32>) -> (Value, Vec<String>) {
        let (mut namespaces, mut removed) = (namespaces, Vec::new());
        complete(&mut namespaces, sandbox, &mut removed);
        (namespaces, removed)
    }

    #[test]
    fn a_pods_container_shares_with_its_sandbox_what_it_would_on_a_host() {
        let namespaces = json!([
            {"type": "ipc", "path": "/proc/77/ns/ipc"},
            {"type": "uts", "path": "/proc/77/ns/uts"},
            {"type": "pid"},
            {"type": "user", "path": "/proc/77/ns/user"},
        ]);
        let (shared, removed) = completed(namespaces.clone(), Some(9));
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
        let (alone, removed) = completed(namespaces, None);
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
