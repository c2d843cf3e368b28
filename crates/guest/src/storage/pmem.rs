//! Layers on persistent memory (GCS bridge protocol §7.3).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use cofferdam_mounting::{layer, mapper, mount_point, verity::Digest};
use cofferdam_protocol::settings::VpmemDevice;
use rustix::mount::MountFlags;

use super::{
    path::guest_path,
    scsi::{System, wait},
    verity,
};
use crate::error::{AgentError, Result};

/// How long a device may take to appear.
const LIMIT: Duration = Duration::from_secs(5);

/// Mounts a persistent-memory device, read-only.
pub(crate) fn add(request: &VpmemDevice) -> Result<()> {
    if request.mapping_info.is_some() {
        return Err(AgentError::NotSupported(
            "packed persistent memory is not supported".into(),
        ));
    }
    let pin = verity::pin(request.verity_info.as_ref())?;
    let target = guest_path(&request.mount_path)?;
    let system = System::default();
    let node = wait(
        &format!("persistent memory {}", request.device_number),
        LIMIT,
        || node(&system, request.device_number),
    )?;
    mount_point::make_free(&target)?;
    let mounted = mount(&node, request.device_number, &target, pin.as_ref());
    if mounted.is_err() {
        let _ = mount_point::clear(&target);
    }
    mounted
}

fn mount(node: &Path, number: u32, target: &Path, pin: Option<&Digest>) -> Result<()> {
    let name = verity::pmem_name(number);
    let source = verity::open(node, &name, true, pin)?;
    let recovery = source.filesystem().no_recovery_option();
    // With DAX the layer's pages are read in place and take no memory of the VM; the device or its block size
    // may not allow it. What is checked has to be read to be checked.
    let direct = match recovery {
        "" => "dax".to_owned(),
        option => format!("{option},dax"),
    };
    if !source.is_checked() && source.mount(target, MountFlags::RDONLY, &direct).is_ok() {
        return Ok(());
    }
    let mounted = source.mount(target, MountFlags::RDONLY, recovery);
    if mounted.is_err() {
        // The error that led here counts.
        let _ = close(number);
    }
    Ok(mounted?)
}

/// Unmounts a layer. What is absent counts as done.
pub(crate) fn remove(request: &VpmemDevice) -> Result<()> {
    mount_point::clear(&guest_path(&request.mount_path)?)?;
    close(request.device_number)
}

/// Takes away what checked the device's blocks, unless it is mounted on another path too.
fn close(number: u32) -> Result<()> {
    let name = verity::pmem_name(number);
    if mapper::mounted(&name)?.is_none() {
        layer::close(&name)?;
    }
    Ok(())
}

fn node(system: &System, number: u32) -> std::result::Result<PathBuf, String> {
    let block = system.sys.join("class/block").join(format!("pmem{number}"));
    if !block.exists() {
        return Err(format!("no {}", block.display()));
    }
    system.node(&block)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_device_must_be_known_to_the_system_and_open() {
        let dir = tempfile::tempdir().unwrap();
        let system = System {
            sys: dir.path().join("sys"),
            dev: dir.path().join("dev"),
        };
        assert!(node(&system, 3).unwrap_err().ends_with("class/block/pmem3"));
        fs::create_dir_all(system.sys.join("class/block/pmem3")).unwrap();
        assert!(node(&system, 3).unwrap_err().contains("dev/pmem3: No such file"));
        fs::create_dir_all(&system.dev).unwrap();
        fs::write(system.dev.join("pmem3"), "").unwrap();
        assert_eq!(node(&system, 3), Ok(system.dev.join("pmem3")));
    }
}
