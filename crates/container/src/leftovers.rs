//! The proof at the end of a run: what the ledger, the hypervisor and the guest's kernel still hold.

use cofferdam_backend::BackendError;
use cofferdam_bridge::BridgeError;
use cofferdam_vm::UtilityVm;

/// Why it cannot be told whether anything is left.
#[derive(Debug, thiserror::Error)]
pub enum LeftoversError {
    /// The hypervisor could not be asked.
    #[error("asking for the VM's devices: {0}")]
    Devices(#[from] BackendError),
    /// The guest could not be asked.
    #[error("asking for the VM's mounts: {0}")]
    Mounts(#[from] BridgeError),
}

/// Everything that nobody should hold any more, in words: slots of the ledger, devices and shares as the hypervisor
/// itself lists them, and mounts as the guest's kernel does.
///
/// # Errors
/// Where one of the two could not be asked.
pub async fn left_behind(vm: &UtilityVm) -> Result<Vec<String>, LeftoversError> {
    let devices = vm.backend().devices().await?;
    let mounts = vm.bridge().guest_mounts().await?;
    let held = vm.driver().ledger().view().slots.len();
    let mut left: Vec<String> = Vec::new();
    left.extend((held > 0).then(|| format!("{held} slots of the ledger")));
    left.extend(devices.scsi.iter().map(|address| address.to_string()));
    left.extend(devices.vpmem.iter().map(|index| format!("VPMEM {index}")));
    left.extend(devices.shares.iter().map(|share| format!("share {share}")));
    left.extend(devices.leftovers.iter().cloned());
    let mounted = mounts.listed.iter();
    left.extend(mounted.map(|mount| format!("{} mounted on {}", mount.source, mount.path)));
    left.extend((mounts.omitted > 0).then(|| format!("{} more mounts", mounts.omitted)));
    Ok(left)
}
