//! Leaving the kernel's first root.
//!
//! pivot_root(2) is impossible on the initramfs, and every container needs it. So the agent moves itself to a tmpfs,
//! puts that over the root and starts again from there.

use std::{
    env, fs, io,
    os::unix::{fs as unix, process::CommandExt as _},
    path::Path,
    process::Command,
};

use rustix::{
    mount::{MountFlags, mount, mount_move},
    process::{chdir, chroot},
};

use crate::error::{AgentError, During, Result};

/// Set in the environment once the root is ours.
const PREPARED: &str = "COFFERDAM_ROOT";
/// Where the new root is prepared.
const NEW_ROOT: &str = "/.root";
/// What is not taken along: kernel modules have been loaded, the others are mount points.
const LEFT_BEHIND: [&str; 6] = ["/lib/modules", "/dev", "/proc", "/sys", "/run", NEW_ROOT];

/// Whether this program already runs from its own root.
pub(crate) fn is_prepared() -> bool {
    env::var_os(PREPARED).is_some()
}

/// Moves to the new root and starts this program again. Returns only on failure.
pub(crate) fn prepare_and_restart() -> AgentError {
    match prepare() {
        Err(error) => error,
        Ok(()) => AgentError::Io {
            action: "starting /init again".into(),
            source: Command::new("/init")
                .args(env::args_os().skip(1))
                .env(PREPARED, "tmpfs")
                .exec(),
        },
    }
}

fn prepare() -> Result<()> {
    let new = Path::new(NEW_ROOT);
    let make = || {
        fs::create_dir(new)?;
        mount("tmpfs", new, "tmpfs", MountFlags::empty(), c"mode=0755")?;
        copy_tree(Path::new("/"), new)
    };
    make().during(|| "copying the first root to a tmpfs".into())?;
    // Memory of the first root would stay in use for ever.
    empty(Path::new("/"));
    let enter = || {
        chdir(new)?;
        mount_move(".", "/")?;
        chroot(".")?;
        chdir("/")
    };
    enter().during(|| "moving to the new root".into())
}

fn left_behind(path: &Path) -> bool {
    LEFT_BEHIND.iter().any(|left| path == Path::new(left))
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if left_behind(&source) {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir_all(&target)?;
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            unix::symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// Removes what can be removed; the running program's file stays until the restart.
fn empty(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path == Path::new(NEW_ROOT) || path == Path::new("/dev") {
            continue;
        }
        let _ = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_copied_with_links_and_modes() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(from.path().join("bin")).unwrap();
        fs::write(from.path().join("bin/tool"), "x").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(from.path().join("bin/tool"), mode).unwrap();
        unix::symlink("tool", from.path().join("bin/other")).unwrap();
        copy_tree(from.path(), to.path()).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("bin/other")).unwrap(), "x");
        let copied = fs::metadata(to.path().join("bin/tool")).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&copied.permissions()) & 0o777,
            0o755
        );
    }

    #[test]
    fn modules_and_mount_points_are_left_behind() {
        assert!(left_behind(Path::new("/lib/modules")));
        assert!(left_behind(Path::new("/.root")));
        assert!(!left_behind(Path::new("/lib")));
        assert!(!left_behind(Path::new("/init")));
    }
}
