//! Settings of the kernel's network that a container's document asks for.
//!
//! The runtime library refuses them for a container without a network namespace of its own, as they would be the host's. Here
//! they are the VM's, which is the container's alone or its pod's: the agent sets them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::{
    error::{AgentError, During, Result},
    storage::path::is_component,
};

/// Where the kernel has its settings.
const SETTINGS: &str = "/proc/sys";

/// Sets those of the network and takes them out of the document, unless the container has a network of its own.
pub(super) fn settle(spec: &mut Value) -> Result<()> {
    let namespaces = spec.pointer("/linux/namespaces").and_then(Value::as_array);
    let own = namespaces
        .into_iter()
        .flatten()
        .any(|namespace| namespace.get("type").and_then(Value::as_str) == Some("network"));
    let wanted = spec
        .pointer_mut("/linux/sysctl")
        .and_then(Value::as_object_mut)
        .filter(|_| !own);
    let Some(wanted) = wanted else {
        return Ok(());
    };
    for (file, value) in taken(wanted)? {
        let path = Path::new(SETTINGS).join(file);
        fs::write(&path, value).during(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The settings of the network among them: file below [`SETTINGS`], and value.
fn taken(wanted: &mut Map<String, Value>) -> Result<Vec<(PathBuf, String)>> {
    let mut settings = Vec::new();
    for (name, value) in wanted.iter() {
        let file = name.replace('.', "/");
        if !file.starts_with("net/") {
            continue;
        }
        let refused = |why: &str| AgentError::Invalid(format!("linux.sysctl {name:?}: {why}"));
        // A dot is a separator here, so nothing climbs; what is empty would be another file.
        if !file.split('/').all(is_component) {
            return Err(refused("it is no name of a setting"));
        }
        let value = value.as_str().ok_or_else(|| refused("its value is no text"))?;
        settings.push((file.into(), value.to_owned()));
    }
    wanted.retain(|name, _| !name.replace('.', "/").starts_with("net/"));
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_of_the_network_are_taken_and_others_stay() {
        let mut wanted = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "1", "net/core/somaxconn": "5"});
        let settings = taken(wanted.as_object_mut().unwrap()).unwrap();
        let expected = [("net/ipv4/ip_forward", "1"), ("net/core/somaxconn", "5")];
        assert_eq!(
            settings,
            expected.map(|(file, value)| (file.into(), value.to_owned()))
        );
        assert_eq!(wanted, json!({"kernel.msgmax": "1"}));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["net.", "net...kernel.panic", "net/../kernel/panic", "net.a\0"] {
            let mut wanted = json!({ name: "1" });
            assert!(taken(wanted.as_object_mut().unwrap()).is_err(), "{name:?}");
        }
        assert!(taken(json!({"net.a": 1}).as_object_mut().unwrap()).is_err());
    }

    #[test]
    fn a_container_with_its_own_network_has_its_own_settings() {
        let mut spec =
            json!({"linux": {"namespaces": [{"type": "network"}], "sysctl": {"net.no.such": "1"}}});
        settle(&mut spec).unwrap();
        assert_eq!(spec["linux"]["sysctl"], json!({"net.no.such": "1"}));
        spec["linux"]["namespaces"] = json!([]);
        let error = settle(&mut spec).unwrap_err().to_string();
        assert!(error.starts_with("writing /proc/sys/net/no/such: "), "{error}");
    }
}
