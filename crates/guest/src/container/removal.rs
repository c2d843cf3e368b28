//! Removing what a container leaves: its directories and its cgroup.

use std::{fs, io, path::Path};

use crate::error::{During, Result};

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
