//! What is looked at before QEMU is asked: limits, firmware, images.

use std::{
    io,
    path::{Path, PathBuf},
};

use cofferdam_backend::BackendError;
use cofferdam_image::{ImageFacts, ImageFormat};
use cofferdam_ledger::{
    address::{Limits, MAX_SCSI_CONTROLLERS, MAX_VPMEM_DEVICES},
    request::DiskKind,
};

use crate::config::{Firmware, QemuConfig};

/// Where QEMU's packages put qboot.
const QBOOT: &str = "/usr/share/qemu/qboot.rom";
/// Persistent memory is mapped in pages.
const PAGE: u64 = 4096;

/// Whether a VM can have this many devices.
pub(crate) fn check(limits: &Limits) -> Result<(), BackendError> {
    if !(1..=MAX_SCSI_CONTROLLERS).contains(&limits.scsi_controllers) {
        return Err(BackendError::Unsupported(format!(
            "a utility VM has 1 to {MAX_SCSI_CONTROLLERS} SCSI controllers, not {}",
            limits.scsi_controllers
        )));
    }
    if limits.vpmem_devices > MAX_VPMEM_DEVICES {
        return Err(BackendError::Unsupported(format!(
            "a utility VM has at most {MAX_VPMEM_DEVICES} persistent-memory devices, not {}",
            limits.vpmem_devices
        )));
    }
    Ok(())
}

/// qboot starts an uncompressed (ELF) kernel through PVH without a boot loader of its own.
pub(crate) fn firmware(config: &QemuConfig) -> Option<PathBuf> {
    match &config.firmware {
        Firmware::Default => None,
        Firmware::File(path) => Some(path.clone()),
        Firmware::Auto => {
            let mut magic = [0; 4];
            let mut kernel = std::fs::File::open(config.kernel.as_ref()?).ok()?;
            io::Read::read_exact(&mut kernel, &mut magic).ok()?;
            let qboot = Path::new(QBOOT);
            (magic == *b"\x7fELF" && qboot.exists()).then(|| qboot.to_owned())
        }
    }
}

pub(crate) async fn probed(path: &Path) -> io::Result<ImageFacts> {
    let path = path.to_owned();
    match tokio::task::spawn_blocking(move || cofferdam_image::probe(&path)).await {
        Ok(Ok(facts)) => Ok(facts),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

pub(crate) fn disk_problem(facts: &ImageFacts, kind: DiskKind) -> Option<String> {
    match kind {
        DiskKind::Physical => facts.problem_as_device(),
        DiskKind::Virtual => facts.problem_as_image(),
    }
}

/// How much of a file is mapped, in bytes: all of its data, in whole pages.
pub(crate) fn vpmem_length(facts: &ImageFacts, max_bytes: u64) -> Result<u64, String> {
    if let Some(problem) = &facts.problem {
        return Err(problem.clone());
    }
    if !matches!(facts.format, ImageFormat::Raw | ImageFormat::VhdFixed) {
        return Err(format!("a {} image cannot be mapped as memory", facts.format));
    }
    if facts.file_size_bytes > max_bytes {
        return Err(format!(
            "it has {} bytes; a device has at most {max_bytes}",
            facts.file_size_bytes
        ));
    }
    let length = facts.file_size_bytes / PAGE * PAGE;
    if length < facts.virtual_size_bytes {
        return Err(format!(
            "its {} bytes are no whole pages of {PAGE} bytes",
            facts.virtual_size_bytes
        ));
    }
    Ok(length)
}
