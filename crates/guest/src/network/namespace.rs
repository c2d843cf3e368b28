//! Which network namespace a container is in.

use serde_json::{Map, Value};

/// Annotation that asks for a network namespace of the container's own: without adapters, whatever the VM has.
const OWN: (&str, &str) = ("io.cofferdam.network", "own");

/// Takes the network namespace out of a document, unless the container is to have its own. The VM is what such a namespace is
/// on a host: its adapters are its containers', and those of a pod share them.
pub(crate) fn share(spec: &mut Map<String, Value>) {
    let annotations = spec.get("annotations");
    let asked = annotations.and_then(|annotations| annotations.get(OWN.0)?.as_str());
    if asked == Some(OWN.1) {
        return;
    }
    let namespaces = spec
        .get_mut("linux")
        .and_then(|linux| linux.get_mut("namespaces")?.as_array_mut());
    if let Some(namespaces) = namespaces {
        namespaces.retain(|namespace| namespace.get("type").and_then(Value::as_str) != Some("network"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_has_the_vms_network_unless_its_own_is_asked_for() {
        let namespaces =
            json!([{"type": "network", "path": "/var/run/netns/x"}, {"type": "network"}, {"type": "pid"}]);
        let mut spec = json!({"linux": {"namespaces": namespaces}});
        let mut own = spec.clone();
        share(spec.as_object_mut().unwrap());
        assert_eq!(spec["linux"]["namespaces"], json!([{"type": "pid"}]));
        own["annotations"] = json!({ OWN.0: OWN.1 });
        share(own.as_object_mut().unwrap());
        assert_eq!(own["linux"]["namespaces"], namespaces);
        share(&mut Map::new());
    }
}
