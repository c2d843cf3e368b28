//! Making and clearing mount points.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use rustix::{
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_change, mount_remount, unmount,
    },
};

use crate::{
    error::{During, MountError, Result},
    mountinfo,
};

/// Makes `path` and what leads to it, for the owner only (GCS bridge protocol §7.1).
///
/// # Errors
/// The system's.
pub fn make(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .during(|| format!("making mount point {}", path.display()))
}

/// Makes `path` for a new mount, and refuses one that something is mounted on already.
///
/// # Errors
/// [`MountError::Busy`]; the system's.
pub fn make_free(path: &Path) -> Result<()> {
    if mountinfo::is_mounted(path)? {
        return Err(MountError::Busy {
            what: format!("mount point {}", path.display()),
            holder: "something is mounted there already".into(),
        });
    }
    make(path)
}

/// Unmounts whatever is on `path`. What is absent counts as done, so it can be repeated.
///
/// # Errors
/// [`MountError::Busy`] with what holds it; the system's.
pub fn unmount_all(path: &Path) -> Result<()> {
    // A failed step may have left several mounts on one point.
    while mountinfo::is_mounted(path)? {
        match unmount(path, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(Errno::BUSY) => return Err(busy(path)),
            Err(error) => return Err(error).during(|| format!("unmounting {}", path.display())),
        }
    }
    Ok(())
}

/// Unmounts whatever is on `path` and removes the directory. What is absent counts as done, so it can be
/// repeated.
///
/// # Errors
/// As for [`unmount_all`]; the system's where the directory cannot be removed, since there is something in it.
pub fn clear(path: &Path) -> Result<()> {
    unmount_all(path)?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(found) if found.is_symlink() => {
            return fs::remove_file(path).during(|| format!("removing link {}", path.display()));
        }
        _ => {}
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).during(|| format!("removing mount point {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a directory and what is in it, but never through a mount. What is absent counts as done.
///
/// # Errors
/// [`MountError::Busy`] where something is mounted in it; the system's.
pub fn remove_tree(directory: &Path) -> Result<()> {
    if let Some(mount) = mountinfo::read()?
        .into_iter()
        .find(|mount| mount.path.starts_with(directory))
    {
        return Err(MountError::Busy {
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

fn busy(path: &Path) -> MountError {
    let below = mountinfo::read().ok().and_then(|mounts| {
        mounts
            .into_iter()
            .find(|mount| mount.path != path && mount.path.starts_with(path))
            .map(|mount| mount.path)
    });
    MountError::Busy {
        what: format!("mount {}", path.display()),
        holder: match below {
            Some(inner) => format!("{} is mounted below it", inner.display()),
            None => "a process or another mount still uses it".into(),
        },
    }
}

/// Binds `source` on `target`, read-only if asked. A half-made bind is taken away again.
///
/// # Errors
/// The system's.
pub fn bind(source: &Path, target: &Path, read_only: bool) -> Result<()> {
    mount_bind(source, target).during(|| format!("binding {} on {}", source.display(), target.display()))?;
    if read_only && let Err(error) = mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, "") {
        let _ = unmount(target, UnmountFlags::NOFOLLOW);
        return Err(error).during(|| format!("making {} read-only", target.display()));
    }
    Ok(())
}

/// The propagation that mount option `option` names, if it names one.
fn propagation(option: &str) -> Option<MountPropagationFlags> {
    let (recursive, name) = match option.strip_prefix('r') {
        Some(name) if matches!(name, "shared" | "slave" | "private" | "unbindable") => (true, name),
        _ => (false, option),
    };
    let flags = match name {
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "private" => MountPropagationFlags::PRIVATE,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some(if recursive {
        flags | MountPropagationFlags::REC
    } else {
        flags
    })
}

/// Sets the propagation of the mount on `path` as `options` say; other options are not its business.
///
/// # Errors
/// The system's.
pub fn propagate(path: &Path, options: &[String]) -> Result<()> {
    for flags in options.iter().filter_map(|option| propagation(option)) {
        mount_change(path, flags).during(|| format!("setting the propagation of {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearing_what_is_absent_succeeds_and_removes_an_unmounted_directory() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().join("a/b");
        clear(&point).unwrap();
        make_free(&point).unwrap();
        clear(&point).unwrap();
        assert!(!point.exists());
        clear(&point).unwrap();
    }

    #[test]
    fn clearing_never_deletes_contents() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kept"), "x").unwrap();
        let error = clear(dir.path()).unwrap_err().to_string();
        assert!(error.contains("removing mount point"), "{error}");
        assert!(dir.path().join("kept").exists());
    }

    #[test]
    fn propagation_options_are_told_from_others() {
        assert_eq!(
            propagation("rshared"),
            Some(MountPropagationFlags::SHARED | MountPropagationFlags::REC)
        );
        assert_eq!(propagation("slave"), Some(MountPropagationFlags::DOWNSTREAM));
        assert_eq!(propagation("ro"), None);
        assert_eq!(propagation("rbind"), None);
    }

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
