//! Where things are: the repository, cargo's target directory, the cache.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};

/// The repository's root directory.
pub(crate) fn root() -> PathBuf {
    let manifest_dir =
        env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let mut root = PathBuf::from(manifest_dir);
    root.pop();
    root
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Boot files: `small/` and `debian/`, each with `kernel` and `initramfs.cpio`.
pub(crate) fn boot_dir() -> PathBuf {
    target().join("boot")
}

/// One log file for each program run.
pub(crate) fn logs_dir() -> PathBuf {
    target().join("xtask-logs")
}

/// What is slow to make and outlives `cargo clean`: `$XDG_CACHE_HOME/cofferdam`, or `~/.cache/cofferdam`.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    base.map(|base| base.join("cofferdam"))
        .ok_or_else(|| anyhow!("no place for the cache: set HOME or XDG_CACHE_HOME to an absolute path"))
}

/// `fs::create_dir_all` with the path in the error.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("could not create the directory {}", path.display()))
}

/// Removes a directory and all below it; an absent one is fine.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove the directory {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A path as shown to a person: relative to the repository where it lies below it.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
