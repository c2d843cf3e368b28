//! Loading kernel modules from the initramfs, for kernels that need some.

use std::{ffi::CStr, fs, path::Path};

use rustix::{io::Errno, system::finit_module};

use crate::storage::path::is_component;

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
    fn without_an_order_there_is_nothing_to_do_and_a_missing_module_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).is_empty());
        fs::write(dir.path().join("order"), "gone.ko\n").unwrap();
        assert_eq!(load(dir.path()).len(), 1);
        assert!(load(dir.path())[0].starts_with("kernel module gone.ko: No such file"));
    }
}
