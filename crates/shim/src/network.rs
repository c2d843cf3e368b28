//! The pod's network: each interface of its network namespace carried into the VM.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cofferdam_network::{Adapters, Tap, interfaces};
use cofferdam_owner::Owned;
use cofferdam_plan::Spec;
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

/// Takes the place of every interface in the namespace, which is noted before it is done. After a failure none is taken.
pub(crate) fn join(namespace: Option<&Path>, owned: &mut Owned) -> Result<Adapters> {
    let Some(namespace) = namespace else {
        return Ok(Adapters::default());
    };
    let names = interfaces(namespace).context("looking for the pod's interfaces")?;
    owned.note_redirected(namespace, &names)?;
    let adapters = Adapters::join(namespace, &names).context("carrying the pod's interfaces into its VM")?;
    owned.note_devices(&adapters)?;
    Ok(adapters)
}

/// For QEMU.
pub(crate) fn nics(adapters: &Adapters) -> Vec<Nic> {
    let nic = |tap: &Tap| {
        let description = tap.description();
        Nic::on_tap(description.mac.0, description.mtu, tap.device())
    };
    adapters.taps().map(nic).collect()
}

/// Has the guest set them up as the interfaces were.
pub(crate) async fn configure(adapters: &Adapters, vm: &UtilityVm) -> Result<()> {
    for request in adapters.requests() {
        let added = vm.bridge().modify(request).await;
        added.context("setting up the pod's network in the VM")?;
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
