//! Loading kernel modules from the initramfs, for kernels that need some.
//!
//! Most are loaded at boot. What only some layers need is loaded with the first of these: every VM's boot would pay
//! for it (docs/decisions/0103-verity-in-the-guest.md).

use std::{
    ffi::CStr,
    fs, io,
    path::Path,
    sync::{Mutex, PoisonError},
};

use rustix::{io::Errno, system::finit_module};

use crate::storage::path::is_component;

/// Where the modules are that are loaded at boot.
pub(crate) const AT_BOOT: &str = "/lib/modules/cofferdam";
/// Where the others are, which the agent takes along to its own root: beside them, for each feature of the kernel, a
/// list of the modules it needs, named after the feature.
const ON_DEMAND: &str = "/lib/modules-on-demand";
/// Two layers may need one feature at once.
static LOADING: Mutex<()> = Mutex::new(());

/// Gives the kernel a feature that it may not have yet. Where there is no list for it, the kernel has it or never will;
/// what fails shows when the feature is used, and is in the log.
pub(crate) fn provide(feature: &str) {
    let _turn = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    for failure in load_on_demand(Path::new(ON_DEMAND), feature) {
        tracing::warn!(feature, "{failure}");
    }
}

/// Loads what `<directory>/<feature>` lists, once: what is loaded is of no more use as a file, and files take memory.
fn load_on_demand(directory: &Path, feature: &str) -> Vec<String> {
    let list = directory.join(feature);
    let Ok(order) = fs::read_to_string(&list) else {
        return Vec::new();
    };
    let mut failures = Vec::new();
    for name in names(&order) {
        let file = directory.join(name);
        match load_one(&file) {
            Ok(()) => drop(fs::remove_file(&file)),
            // Another feature needed it first.
            Err(_) if matches!(fs::metadata(&file), Err(gone) if gone.kind() == io::ErrorKind::NotFound) => {}
            Err(failure) => failures.push(format!("kernel module {name}: {failure}")),
        }
    }
    if failures.is_empty() {
        let _ = fs::remove_file(&list);
    }
    failures
}

/// Loads the modules that `<directory>/order` names, one file name a line, in that order. Without that file there is
/// nothing to do. Returns what failed; the VM may work without it.
pub(crate) fn load(directory: &Path) -> Vec<String> {
    let Ok(order) = fs::read_to_string(directory.join("order")) else {
        return Vec::new();
    };
    let mut failures = Vec::new();
    for name in names(&order) {
        if let Err(failure) = load_one(&directory.join(name)) {
            failures.push(format!("kernel module {name}: {failure}"));
        }
    }
    failures
}

fn names(order: &str) -> impl Iterator<Item = &str> {
    order
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#') && is_component(line))
}

fn load_one(path: &Path) -> Result<(), String> {
    const NO_PARAMETERS: &CStr = c"";
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    match finit_module(&file, NO_PARAMETERS, 0) {
        // Loaded already, or part of the kernel.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_kept_and_odd_lines_are_skipped() {
        let order = "# first\nvsock.ko\n\n  virtio_scsi.ko \n../evil.ko\n/abs.ko\n9p.ko";
        assert_eq!(
            names(order).collect::<Vec<_>>(),
            ["vsock.ko", "virtio_scsi.ko", "9p.ko"]
        );
    }

    #[test]
    fn a_feature_without_a_list_needs_nothing_and_a_module_that_fails_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load_on_demand(dir.path(), "erofs").is_empty());
        fs::write(dir.path().join("erofs"), "loaded_before.ko\nbroken.ko\n").unwrap();
        fs::write(dir.path().join("broken.ko"), "no module").unwrap();
        for _again in 0..2 {
            let failures = load_on_demand(dir.path(), "erofs");
            assert_eq!(failures.len(), 1, "{failures:?}");
            assert!(
                failures[0].starts_with("kernel module broken.ko: "),
                "{failures:?}"
            );
        }
        fs::write(dir.path().join("erofs"), "loaded_before.ko\n").unwrap();
        assert!(load_on_demand(dir.path(), "erofs").is_empty());
        assert!(!dir.path().join("erofs").exists());
    }

    #[test]
    fn without_an_order_there_is_nothing_to_do_and_a_missing_module_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).is_empty());
        fs::write(dir.path().join("order"), "gone.ko\n").unwrap();
        assert_eq!(load(dir.path()).len(), 1);
        assert!(load(dir.path())[0].starts_with("kernel module gone.ko: No such file"));
    }
}
