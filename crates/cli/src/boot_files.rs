//! Finding the kernel and the initramfs.
//!
//! A boot directory holds `kernel` and `initramfs.cpio`, directly or in `small/` (the kernel built for this purpose)
//! and `debian/` (the distribution's); the small one is preferred because it boots in a third of the time.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::args::VmArgs;

/// What the VM boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootFiles {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

/// The files named on the command line, or those of the first boot directory that has them.
pub(crate) fn find(args: &VmArgs) -> Result<BootFiles> {
    if let (Some(kernel), Some(initramfs)) = (&args.kernel, &args.initramfs) {
        for file in [kernel, initramfs] {
            if !file.is_file() {
                bail!("{} is no file", file.display());
            }
        }
        return Ok(BootFiles {
            kernel: kernel.clone(),
            initramfs: initramfs.clone(),
        });
    }
    let candidates = match &args.boot_dir {
        Some(dir) => vec![dir.clone()],
        None => default_directories(std::env::current_exe().ok().as_deref()),
    };
    if let Some(found) = candidates.iter().find_map(|dir| in_directory(dir)) {
        return Ok(found);
    }
    let tried: Vec<_> = candidates
        .iter()
        .map(|dir| format!("\n  {}", dir.display()))
        .collect();
    bail!(
        "no kernel and initramfs found; looked in:{}\nMake them with `cargo xtask boot`, or name them with --boot-dir \
         or --kernel and --initramfs.",
        tried.concat()
    )
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
