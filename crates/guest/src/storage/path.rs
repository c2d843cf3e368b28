//! Which paths the host may name as mount points.

use std::path::{Component, Path, PathBuf};

use crate::error::{AgentError, Result};

/// Longest path taken, in bytes (`PATH_MAX` without its terminator).
const PATH_BYTES: usize = 4095;
/// Directories the agent itself stands on; nothing is mounted on them or below them.
const RESERVED: [&str; 5] = ["/dev", "/proc", "/sys", "/run/cofferdam", "/init"];

/// Directories of a container that are its runtime's and its kernel's; nothing is mounted on them or below them
/// while it runs. runc refuses /proc too.
pub(crate) const RUNTIME_OWN: [&str; 3] = ["/dev", "/proc", "/sys"];

/// The guest path of a request: absolute, normalised (no `.`, `..`, doubled or trailing `/`), not the root and
/// not one of the agent's own directories.
pub(crate) fn guest_path(text: &str) -> Result<PathBuf> {
    checked("guest path", text, &RESERVED, "it belongs to the agent")
}

/// Where in a running container something may be mounted: as [`guest_path`], with that container's own directories.
pub(crate) fn container_path(text: &str) -> Result<PathBuf> {
    let why = "it belongs to the container's runtime";
    checked("destination", text, &RUNTIME_OWN, why)
}

fn checked(what: &str, text: &str, reserved: &[&str], whose: &str) -> Result<PathBuf> {
    let refuse = |why: &str| Err(AgentError::Invalid(format!("{what} {text:?}: {why}")));
    if !text.starts_with('/') {
        return refuse("it must be absolute");
    }
    if text.len() > PATH_BYTES {
        return refuse("it is too long");
    }
    if text.contains('\0') {
        return refuse("it holds a NUL");
    }
    if text
        .split('/')
        .skip(1)
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return refuse("it must be normalised");
    }
    if reserved
        .iter()
        .any(|reserved| Path::new(text).starts_with(reserved))
    {
        return refuse(whose);
    }
    Ok(PathBuf::from(text))
}

/// Whether `name` is one plain path component.
pub(crate) fn is_component(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    !name.contains(['/', '\0']) && matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_guest_paths_pass() {
        for path in [
            "/run/gcs/c/1/rootfs",
            "/tmp/p0",
            "/run/gcs/c/1/mounts/m 3",
            "/run/cofferdam2",
            "/a/..b",
        ] {
            assert_eq!(guest_path(path).unwrap(), PathBuf::from(path), "{path}");
        }
    }

    #[test]
    fn relative_climbing_and_reserved_paths_are_refused() {
        for path in [
            "",
            "/",
            "run/x",
            "/run/../etc",
            "/run/./x",
            "/run//x",
            "/run/x/",
            "/proc",
            "/dev/x",
            "/sys/fs",
            "/run/cofferdam/disks/0-0",
            "/a\0b",
        ] {
            assert_eq!(guest_path(path).unwrap_err().code(), 0x8007_0057, "{path:?}");
        }
        assert!(guest_path(&format!("/{}", "x".repeat(5000))).is_err());
    }

    #[test]
    fn a_container_has_its_own_directories_and_may_use_the_agents_names() {
        for path in ["/run/cofferdam/x", "/init", "/data", "/devices"] {
            assert_eq!(container_path(path).unwrap(), PathBuf::from(path), "{path}");
        }
        for path in ["/", "/dev/shm", "/proc", "/sys/x", "/a/../b", "a", "/a/"] {
            assert_eq!(container_path(path).unwrap_err().code(), 0x8007_0057, "{path:?}");
        }
    }

    #[test]
    fn a_component_is_one_plain_name() {
        assert!(is_component("pod-1.a"));
        for name in ["", ".", "..", "a/b", "/", "a\0"] {
            assert!(!is_component(name), "{name:?}");
        }
    }
}
