//! Where a shim listens, and which shim a container belongs to.

use std::{
    fs, io,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cofferdam_container::read_spec;
use cofferdam_plan::Spec;
use cofferdam_protocol::annotations::{CONTAINER_TYPE, SANDBOX_ID};
use serde_json::Value;

/// The name of the VM's owner: the pod's sandbox, or the container itself.
pub(crate) fn group(spec: &Spec, id: &str) -> String {
    let annotation = |name: &str| spec.annotation(name).and_then(Value::as_str);
    match (annotation(CONTAINER_TYPE), annotation(SANDBOX_ID)) {
        (Some("container"), Some(sandbox)) => sandbox.to_owned(),
        _ => id.to_owned(),
    }
}

/// The spec of a bundle.
pub(crate) fn spec_of(bundle: &Path) -> Result<Spec> {
    let file = bundle.join("config.json");
    let text = read_spec(&file).with_context(|| format!("reading {}", file.display()))?;
    Spec::parse(&text).with_context(|| format!("in {}", file.display()))
}

/// The socket of an address.
fn path_of(address: &str) -> PathBuf {
    PathBuf::from(address.strip_prefix("unix://").unwrap_or(address))
}

/// Whether somebody serves there.
pub(crate) fn is_served(address: &str) -> bool {
    UnixStream::connect(path_of(address)).is_ok()
}

/// Listens there; a socket that nobody serves any more is replaced.
pub(crate) fn listen(address: &str) -> io::Result<UnixListener> {
    let path = path_of(address);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    match UnixListener::bind(&path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !is_served(address) => {
            fs::remove_file(&path)?;
            UnixListener::bind(&path)
        }
        other => other,
    }
}

/// Removes the socket.
pub(crate) fn remove(address: &str) {
    // It may be gone already.
    let _ = fs::remove_file(path_of(address));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(annotations: &str) -> Spec {
        let text =
            format!(r#"{{"ociVersion":"1.0.2","root":{{"path":"rootfs"}},"annotations":{annotations}}}"#);
        Spec::parse(&text).unwrap()
    }

    #[test]
    fn a_container_of_a_pod_is_its_sandboxs_and_every_other_its_own() {
        let of_pod = format!(r#"{{"{CONTAINER_TYPE}":"container","{SANDBOX_ID}":"pod"}}"#);
        assert_eq!(group(&spec(&of_pod), "c"), "pod");
        let sandbox = format!(r#"{{"{CONTAINER_TYPE}":"sandbox","{SANDBOX_ID}":"pod"}}"#);
        assert_eq!(group(&spec(&sandbox), "pod"), "pod");
        assert_eq!(group(&spec("{}"), "c"), "c");
    }

    #[test]
    fn a_socket_that_nobody_serves_is_replaced_and_one_that_is_served_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("unix://{}/deep/socket", dir.path().display());
        let first = listen(&address).unwrap();
        assert_eq!(listen(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!is_served(&address));
        let _second = listen(&address).unwrap();
        assert!(is_served(&address));
    }
}
