//! The pod's network: each interface of its network namespace carried into the VM.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cofferdam_network::{Tap, interfaces, restore};
use cofferdam_plan::Spec;
use cofferdam_protocol::settings::{ModificationRequest, RequestType, Resource};
use cofferdam_qemu::Nic;
use cofferdam_vm::UtilityVm;
use serde_json::Value;

/// The network namespace a spec names, unless it is this process's own: a pod in the host's network has no other.
pub(crate) fn namespace_of(spec: &Spec) -> Option<PathBuf> {
    let namespaces = spec.document().pointer("/linux/namespaces")?.as_array()?;
    let of_network = |entry: &&Value| entry.get("type").and_then(Value::as_str) == Some("network");
    let path = namespaces.iter().find(of_network)?.get("path")?.as_str()?;
    if path.is_empty() || is_own(Path::new(path)) {
        return None;
    }
    Some(path.into())
}

fn is_own(path: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    match (identity(path), identity(Path::new("/proc/self/ns/net"))) {
        (Ok(theirs), Ok(own)) => theirs == own,
        _ => false,
    }
}

/// The adapters of a VM that have taken interfaces' places. Dropped, they give them back.
#[derive(Default)]
pub(crate) struct Adapters(Vec<Tap>);

impl Adapters {
    /// Takes the place of every interface in the namespace. After a failure none is taken.
    pub(crate) fn join(namespace: Option<&Path>) -> Result<Self> {
        let mut joined = Vec::new();
        if let Some(namespace) = namespace {
            let names = interfaces(namespace).context("looking for the pod's interfaces")?;
            for name in names {
                let tap = Tap::join(namespace, &name);
                joined.push(tap.with_context(|| format!("carrying {name} of the pod into its VM"))?);
            }
        }
        Ok(Self(joined))
    }

    /// For QEMU.
    pub(crate) fn nics(&self) -> Vec<Nic> {
        let nic = |tap: &Tap| {
            let description = tap.description();
            Nic::on_tap(description.mac.0, description.mtu, tap.device())
        };
        self.0.iter().map(nic).collect()
    }

    /// Has the guest set them up as the interfaces were.
    pub(crate) async fn configure(&self, vm: &UtilityVm) -> Result<()> {
        for tap in &self.0 {
            let description = tap.description();
            let digits: String = description.mac.to_string().replace(':', "");
            let request = ModificationRequest {
                request_type: RequestType::Add,
                resource: Resource::Network(
                    description.settings(&format!("00000000-0000-0000-0000-{digits}")),
                ),
            };
            let added = vm.bridge().modify(request).await;
            added.with_context(|| format!("setting up the adapter {} in the VM", description.mac))?;
        }
        Ok(())
    }

    /// Gives the interfaces their places back.
    pub(crate) fn remove(self) -> Result<()> {
        let outcomes: Vec<_> = self.0.into_iter().map(Tap::remove).collect();
        Ok(outcomes.into_iter().collect::<Result<(), _>>()?)
    }
}

/// Gives back what a killed owner had taken.
pub(crate) fn clear(namespace: &Path) -> Result<()> {
    if !namespace.exists() {
        return Ok(());
    }
    for name in interfaces(namespace)? {
        restore(namespace, &name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(namespaces: &str) -> Option<PathBuf> {
        let text = format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":"rootfs"}},"linux":{{"namespaces":{namespaces}}}}}"#
        );
        namespace_of(&Spec::parse(&text).unwrap())
    }

    #[test]
    fn only_another_network_namespace_is_carried_into_the_vm() {
        assert_eq!(
            of(r#"[{"type":"pid"},{"type":"network","path":"/run/netns/pod"}]"#),
            Some("/run/netns/pod".into())
        );
        assert_eq!(of(r#"[{"type":"network"}]"#), None);
        assert_eq!(of(r#"[{"type":"network","path":"/proc/self/ns/net"}]"#), None);
        assert_eq!(of("[]"), None);
    }
}
