//! `sandbox://` sources: directories that the containers of one pod share inside the VM.
//!
//! They live below `<sandbox root>/sandboxMounts`. A container can write there, symlinks included, so a path is
//! walked by the kernel with that directory as its root, and what was found is bound to a place of the agent's own
//! before the runtime gets its name: nothing can be swapped between the look and the use.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use cofferdam_mounting::mount_point;
use cofferdam_rootfs::Root;
use rustix::fs::{FileType, fstat};

use crate::error::{AgentError, During, Result};

/// Prefix of such a source.
pub(crate) const PREFIX: &str = "sandbox://";
/// Directory below the sandbox root.
const DIRECTORY: &str = "sandboxMounts";
/// Where resolved sources are bound while a container is created.
const STAGING: &str = "/run/cofferdam/sandbox";

/// The components of the path after the prefix. Climbing is refused by component, not by text.
pub(crate) fn components(path: &str) -> std::result::Result<Vec<&str>, &'static str> {
    let parts: Vec<_> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.contains(&"..") {
        return Err("it climbs out of the sandbox");
    }
    if path.contains('\0') {
        return Err("it holds a NUL");
    }
    Ok(parts)
}

/// Opens `path` below the sandbox root's shared directory, making what is absent.
pub(crate) fn resolve(sandbox_root: &Path, path: &str) -> Result<OwnedFd> {
    let parts = components(path).map_err(|why| AgentError::Invalid(format!("{PREFIX}{path}: {why}")))?;
    let shared = sandbox_root.join(DIRECTORY);
    fs::create_dir_all(&shared).during(|| format!("making {}", shared.display()))?;
    // Symlinks (absolute ones too) and their `..` end at the shared directory.
    Ok(Root::open(&shared)?.make(&parts.join("/"))?)
}

/// Sources bound to the agent's own places; the binds end with this value.
#[derive(Debug, Default)]
pub(crate) struct Staged(Vec<PathBuf>);

impl Staged {
    /// Binds what `resolved` refers to, for mount `index` of container `id`, and returns its path.
    pub(crate) fn bind(&mut self, id: &str, index: usize, resolved: &OwnedFd) -> Result<PathBuf> {
        let place = Path::new(STAGING).join(id).join(index.to_string());
        self.0.push(place.clone());
        let found = fstat(resolved).during(|| format!("looking at mount {index}'s source"))?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            mount_point::make(&place)?;
        } else {
            if let Some(parent) = place.parent() {
                mount_point::make(parent)?;
            }
            fs::write(&place, "").during(|| format!("making {}", place.display()))?;
        }
        let source = PathBuf::from(format!("/proc/self/fd/{}", resolved.as_raw_fd()));
        mount_point::bind(&source, &place, false)?;
        Ok(place)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for place in self.0.drain(..) {
            // A file's place is no directory: `clear` unmounts it, and says so about the rest.
            if mount_point::clear(&place).is_err() {
                let _ = fs::remove_file(&place);
            }
            if let Some(parent) = place.parent() {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

/// The root of the sandbox named `id`, if it is not one this agent created itself.
pub(crate) fn default_root(id: &str) -> PathBuf {
    Path::new("/run/gcs/c").join(id)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn path_of(file: &OwnedFd) -> PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
    }

    #[test]
    fn absent_directories_are_made_below_the_shared_one() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let found = resolve(&root, "/a//b/./c").unwrap();
        assert_eq!(path_of(&found), root.join("sandboxMounts/a/b/c"));
        assert!(root.join("sandboxMounts/a/b/c").is_dir());
        assert_eq!(path_of(&resolve(&root, "").unwrap()), root.join("sandboxMounts"));
    }

    #[test]
    fn climbing_and_siblings_are_out_of_reach() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sandboxMountsX")).unwrap();
        for path in ["..", "../sandboxMountsX", "/a/../../x", "a/.."] {
            assert_eq!(
                resolve(dir.path(), path).unwrap_err().code(),
                0x8007_0057,
                "{path}"
            );
        }
        assert_eq!(components("/a..b/..c"), Ok(vec!["a..b", "..c"]));
    }

    #[test]
    fn symlinks_end_at_the_shared_directory() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let shared = root.join("sandboxMounts");
        fs::create_dir_all(shared.join("etc")).unwrap();
        symlink("/etc", shared.join("absolute")).unwrap();
        symlink("../../../../etc", shared.join("relative")).unwrap();
        symlink("/nowhere/at/all", shared.join("dangling")).unwrap();
        assert_eq!(path_of(&resolve(&root, "absolute").unwrap()), shared.join("etc"));
        assert_eq!(path_of(&resolve(&root, "relative").unwrap()), shared.join("etc"));
        assert_eq!(
            path_of(&resolve(&root, "absolute/made").unwrap()),
            shared.join("etc/made")
        );
        assert!(resolve(&root, "dangling").is_err());
    }

    #[test]
    fn a_file_that_is_there_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("sandboxMounts")).unwrap();
        fs::write(root.join("sandboxMounts/file"), "x").unwrap();
        assert_eq!(
            path_of(&resolve(&root, "/file").unwrap()),
            root.join("sandboxMounts/file")
        );
        assert!(resolve(&root, "/file/below").is_err());
    }
}
