//! Removing what a container leaves: its directories and its cgroup.

use std::{fs, io, path::Path};

use crate::{
    error::{AgentError, During, Result},
    storage::mountinfo,
};

/// Removes a directory, but never through a mount.
pub(super) fn remove_tree(directory: &Path) -> Result<()> {
    if let Some(mount) = mountinfo::read()?
        .into_iter()
        .find(|mount| mount.path.starts_with(directory))
    {
        return Err(AgentError::Busy {
            what: format!("directory {}", directory.display()),
            holder: format!("{} is mounted", mount.path.display()),
        });
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).during(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Removes what the runtime left of a cgroup.
pub(super) fn remove_cgroup(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path())?;
        }
    }
    match fs::remove_dir(cgroup) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).during(|| format!("removing cgroup {}", cgroup.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_with_a_mount_in_it_is_never_removed() {
        let error = remove_tree(Path::new("/proc")).unwrap_err().to_string();
        assert!(error.contains("is busy: /proc"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        remove_tree(&dir.path().join("a")).unwrap();
        remove_tree(&dir.path().join("a")).unwrap();
        assert!(!inner.exists());
    }
}
