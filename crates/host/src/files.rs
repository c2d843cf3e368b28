//! Removing files and directories that may be gone already.

use std::{fs, io, path::Path};

use crate::error::{During, Result};

/// Removes a file. What is absent counts as done.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).during(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a mount point. What is absent counts as done.
pub(crate) fn remove_mount_point(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).during(|| format!("removing mount point {}", path.display()))
        }
        _ => Ok(()),
    }
}
