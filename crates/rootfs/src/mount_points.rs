//! The places a container's mounts need, in a root filesystem that the container itself cannot write.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{Root, RootfsError};

/// Makes what is missing of the places where a document's mounts go: directories, and files for those of single files.
/// A place inside of another mount is that mount's to have.
///
/// Where a root is shared read-only, this is done before: whoever runs the container cannot.
///
/// # Errors
/// A place cannot be made: it climbs, or leads through what is no directory; the system's.
pub fn make_mount_points(root: &Root, document: &Value) -> Result<(), RootfsError> {
    let mounts = document.get("mounts").and_then(Value::as_array);
    let mut covered: Vec<&Path> = Vec::new();
    for mount in mounts.into_iter().flatten() {
        let text = |name: &str| mount.get(name).and_then(Value::as_str);
        let Some(destination) = text("destination") else {
            continue;
        };
        let place = Path::new(destination);
        let is_covered = covered.iter().any(|outer| place.starts_with(outer));
        covered.push(place);
        if is_covered {
            continue;
        }
        let source = text("source").filter(|source| source.starts_with('/'));
        if source.is_some_and(|source| fs::metadata(source).is_ok_and(|found| found.is_file())) {
            root.make_file(destination)?;
        } else {
            root.make(destination)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_made_as_their_sources_are_and_not_inside_of_other_mounts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rootfs");
        fs::create_dir_all(path.join("etc")).unwrap();
        fs::write(path.join("etc/hosts"), "there already").unwrap();
        let file = dir.path().join("source");
        fs::write(&file, "").unwrap();
        let bind = |destination: &str| json!({ "destination": destination, "type": "bind", "source": file });
        let document = json!({ "mounts": [
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts" },
            bind("/etc/resolv.conf"),
            bind("/etc/hosts"),
            bind("/deep/down/file"),
        ]});
        make_mount_points(&Root::open(&path).unwrap(), &document).unwrap();
        assert!(path.join("dev").is_dir() && !path.join("dev/pts").exists());
        assert!(path.join("etc/resolv.conf").is_file() && path.join("deep/down/file").is_file());
        assert_eq!(
            fs::read_to_string(path.join("etc/hosts")).unwrap(),
            "there already"
        );
    }

    #[test]
    fn no_place_is_made_outside_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rootfs");
        fs::create_dir(&path).unwrap();
        std::os::unix::fs::symlink("../../..", path.join("out")).unwrap();
        let root = Root::open(&path).unwrap();
        let source = dir.path().join("source");
        fs::write(&source, "").unwrap();
        let of = |destination: &str| json!({ "mounts": [{ "destination": destination, "source": source }] });
        make_mount_points(&root, &of("/out/made")).unwrap();
        assert!(path.join("made").is_file() && !dir.path().join("made").exists());
        assert!(make_mount_points(&root, &of("/../other")).is_err());
    }
}
