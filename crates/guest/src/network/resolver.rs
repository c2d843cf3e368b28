//! A container's `/etc/resolv.conf`.
//!
//! It is a file of the container's own, bound over whatever its root filesystem has there, as docker does it: the image
//! stays as it is, and what the container writes into it concerns nobody else.

use std::{fs, net::IpAddr, path::Path};

use cofferdam_rootfs::Root;
use rustix::fs::StatVfsMountFlags;
use serde_json::{Value, json};

use super::settings::Adapter;
use crate::error::{During, Result};

/// Where it is in the container.
const DESTINATION: &str = "/etc/resolv.conf";
/// Its name in the bundle.
const FILE: &str = "resolv.conf";

/// What it says for these adapters; nothing if there is no server to say.
pub(super) fn text<'a>(adapters: impl Iterator<Item = &'a Adapter>) -> Option<String> {
    let (mut servers, mut search): (Vec<IpAddr>, Vec<&str>) = (Vec::new(), Vec::new());
    for adapter in adapters {
        for server in &adapter.servers {
            if !servers.contains(server) {
                servers.push(*server);
            }
        }
        for domain in &adapter.search {
            if !search.contains(&domain.as_str()) {
                search.push(domain);
            }
        }
    }
    if servers.is_empty() {
        return None;
    }
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    Some(text)
}

/// Writes the file to the bundle and has it mounted.
pub(super) fn provide(text: &str, bundle: &Path, spec: &mut Value) -> Result<()> {
    if is_mounted(spec) || !has_a_place(spec) {
        return Ok(());
    }
    let path = bundle.join(FILE);
    fs::create_dir_all(bundle)
        .and_then(|()| fs::write(&path, text))
        .during(|| format!("writing {}", path.display()))?;
    let mount = json!({
        "destination": DESTINATION, "type": "bind", "source": path, "options": ["bind", "rprivate", "rw"],
    });
    match &mut spec["mounts"] {
        Value::Array(mounts) => mounts.push(mount),
        none => *none = json!([mount]),
    }
    Ok(())
}

/// Whether the document says itself what is there.
fn is_mounted(spec: &Value) -> bool {
    let mounts = spec.get("mounts").and_then(Value::as_array);
    let mut destinations = mounts
        .into_iter()
        .flatten()
        .filter_map(|mount| mount.get("destination")?.as_str());
    destinations.any(|destination| {
        Path::new(destination)
            .components()
            .eq(Path::new(DESTINATION).components())
    })
}

/// Whether there is a file to mount over, or one can be made. A root filesystem that is a read-only share may have neither,
/// and is to run all the same.
fn has_a_place(spec: &Value) -> bool {
    let Some(root) = spec.pointer("/root/path").and_then(Value::as_str) else {
        return false;
    };
    let read_only =
        rustix::fs::statvfs(root).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
    if !read_only {
        return true;
    }
    // The limit is of no interest: what counts is that something is there.
    let there = Root::open(Path::new(root)).and_then(|root| root.read(DESTINATION, 1 << 20));
    let there = there.is_ok_and(|content| !content.is_empty());
    if !there {
        tracing::warn!(
            "{root} is read-only and has no {DESTINATION}: the container does not know the name servers"
        );
    }
    there
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(servers: &[&str], search: &[&str]) -> Adapter {
        Adapter {
            mac: "52:54:00:00:00:01".parse().unwrap(),
            addresses: Vec::new(),
            routes: Vec::new(),
            neighbours: Vec::new(),
            encap_overhead: 0,
            servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
            search: search.iter().map(|domain| (*domain).to_owned()).collect(),
        }
    }

    #[test]
    fn servers_of_all_adapters_are_named_once() {
        let (first, second) = (
            adapter(&["10.0.2.3"], &["lan"]),
            adapter(&["fd00::3", "10.0.2.3"], &["lan", "example.test"]),
        );
        assert_eq!(
            text([&first, &second].into_iter()).unwrap(),
            "search lan example.test\nnameserver 10.0.2.3\nnameserver fd00::3\n"
        );
        assert_eq!(text([&adapter(&[], &["lan"])].into_iter()), None);
    }

    #[test]
    fn the_file_is_mounted_unless_the_document_mounts_one() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("c/1");
        let mut spec = json!({"root": {"path": dir.path()}});
        provide("nameserver 10.0.2.3\n", &bundle, &mut spec).unwrap();
        let mount = &spec["mounts"][0];
        assert_eq!(mount["destination"], DESTINATION);
        let written = fs::read_to_string(mount["source"].as_str().unwrap()).unwrap();
        assert_eq!(written, "nameserver 10.0.2.3\n");
        for own in ["/etc/resolv.conf", "/etc//resolv.conf", "/etc/./resolv.conf"] {
            let mut spec = json!({"root": {"path": dir.path()}, "mounts": [{"destination": own}]});
            provide("x", &dir.path().join("never"), &mut spec).unwrap();
            assert_eq!(spec["mounts"].as_array().unwrap().len(), 1, "{own}");
        }
        assert!(!dir.path().join("never").exists());
    }
}
