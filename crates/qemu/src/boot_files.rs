//! Finding the kernel and the initramfs.
//!
//! A boot directory holds `kernel` and `initramfs.cpio`, directly or in `small/` (the kernel built for this purpose)
//! and `debian/` (the distribution's); the small one is preferred because it boots in a third of the time.

use std::path::{Path, PathBuf};

/// What the VM boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// The kernel: an uncompressed vmlinux with a PVH entry, or a bzImage.
    pub kernel: PathBuf,
    /// The initramfs with the guest agent as /init.
    pub initramfs: PathBuf,
}

/// Why there is nothing to boot from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootFilesError {
    /// A file that was named is none.
    #[error("{} is no file", .0.display())]
    NoFile(PathBuf),
    /// No directory has both.
    #[error(
        "no kernel and initramfs found; looked in:{}\nMake them with `cargo xtask boot`, or name them with --boot-dir \
         or --kernel and --initramfs.", listed(.0)
    )]
    NotFound(Vec<PathBuf>),
}

fn listed(directories: &[PathBuf]) -> String {
    let lines = directories.iter().map(|dir| format!("\n  {}", dir.display()));
    lines.collect()
}

impl BootFiles {
    /// These two.
    ///
    /// # Errors
    /// [`BootFilesError::NoFile`].
    pub fn named(kernel: &Path, initramfs: &Path) -> Result<Self, BootFilesError> {
        if let Some(missing) = [kernel, initramfs].into_iter().find(|file| !file.is_file()) {
            return Err(BootFilesError::NoFile(missing.to_owned()));
        }
        Ok(Self {
            kernel: kernel.to_owned(),
            initramfs: initramfs.to_owned(),
        })
    }

    /// Those of `dir`; without one, of the first boot directory that has them: beside this program, then where packages
    /// put them.
    ///
    /// # Errors
    /// [`BootFilesError::NotFound`], with every directory that was looked in.
    pub fn find(dir: Option<&Path>) -> Result<Self, BootFilesError> {
        let candidates = match dir {
            Some(dir) => vec![dir.to_owned()],
            None => default_directories(std::env::current_exe().ok().as_deref()),
        };
        let found = candidates.iter().find_map(|dir| in_directory(dir));
        found.ok_or(BootFilesError::NotFound(candidates))
    }
}

/// Beside the program first (a build tree), then where packages put them.
fn default_directories(program: Option<&Path>) -> Vec<PathBuf> {
    let beside = program
        .and_then(|p| p.ancestors().nth(2))
        .map(|dir| dir.join("boot"));
    beside
        .into_iter()
        .chain(["/usr/local/lib/cofferdam/boot", "/usr/lib/cofferdam/boot"].map(PathBuf::from))
        .collect()
}

fn in_directory(dir: &Path) -> Option<BootFiles> {
    ["small", "debian", ""].into_iter().find_map(|flavour| {
        let dir = dir.join(flavour);
        let files = BootFiles {
            kernel: dir.join("kernel"),
            initramfs: dir.join("initramfs.cpio"),
        };
        (files.kernel.is_file() && files.initramfs.is_file()).then_some(files)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn flavour(dir: &Path, name: &str) {
        fs::create_dir_all(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("kernel"), "k").unwrap();
        fs::write(dir.join(name).join("initramfs.cpio"), "i").unwrap();
    }

    #[test]
    fn the_small_kernel_is_preferred_where_both_are() {
        let dir = tempfile::tempdir().unwrap();
        flavour(dir.path(), "debian");
        assert_eq!(
            in_directory(dir.path()).unwrap().kernel,
            dir.path().join("debian/kernel")
        );
        flavour(dir.path(), "small");
        assert_eq!(
            in_directory(dir.path()).unwrap().kernel,
            dir.path().join("small/kernel")
        );
    }

    #[test]
    fn a_kernel_without_its_initramfs_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        flavour(dir.path(), "small");
        fs::remove_file(dir.path().join("small/initramfs.cpio")).unwrap();
        assert_eq!(in_directory(dir.path()), None);
    }

    #[test]
    fn a_build_tree_is_searched_before_the_system() {
        let dirs = default_directories(Some(Path::new("/src/target/release/cofferdam")));
        assert_eq!(dirs[0], Path::new("/src/target/boot"));
    }
}
