//! A plan's needs in the ledger's words.
//!
//! Their order is layers (topmost first), scratch, disks, shares, and the overlay last, since its lower directories
//! are known only once the layers have their slots.

use cofferdam_ledger::{
    Want,
    device::{ContainerMountNeed, DiskNeed, FileKey, LayerNeed, OverlayNeed, ShareNeed},
    request::DiskKind,
};
use cofferdam_plan::{DiskSource, FileId, MountPlan, Needs};

/// Everything but the overlay.
pub(crate) fn of_devices(needs: &Needs) -> Vec<Want> {
    let layers = needs.layers.iter().flat_map(|layers| {
        layers.read_only.iter().map(|layer| {
            Want::Layer(LayerNeed {
                path: layer.host_path.clone(),
                key: file_key(layer.identity),
                bytes: layer.bytes,
            })
        })
    });
    let scratch = needs.layers.iter().map(|layers| {
        Want::Disk(DiskNeed {
            path: layers.scratch.host_path.clone(),
            key: file_key(layers.scratch.identity),
            kind: DiskKind::Virtual,
            guest_path: layers.scratch_path.clone(),
            read_only: false,
            auto_manage: false,
        })
    });
    let disks = needs.disks.iter().map(|disk| {
        Want::Disk(DiskNeed {
            path: disk.host_path.clone(),
            key: file_key(disk.identity),
            kind: match disk.source {
                DiskSource::Virtual => DiskKind::Virtual,
                DiskSource::Physical => DiskKind::Physical,
            },
            guest_path: disk.guest_path.clone(),
            read_only: disk.read_only,
            auto_manage: disk.auto_manage,
        })
    });
    let shares = needs.shares.iter().map(|share| {
        Want::Share(ShareNeed {
            path: share.host_path.clone(),
            guest_path: share.guest_path.clone(),
            read_only: share.read_only,
            allowed_names: share.allowed_names.clone(),
        })
    });
    layers.chain(scratch).chain(disks).chain(shares).collect()
}

/// The overlay; `guest_paths` are those of [`of_devices`].
pub(crate) fn of_overlay(needs: &Needs, guest_paths: &[String]) -> Option<Want> {
    let layers = needs.layers.as_ref()?;
    Some(Want::Overlay(OverlayNeed {
        root: layers.root_path.clone(),
        layers: guest_paths[..layers.read_only.len()].to_vec(),
        scratch: layers.scratch_path.clone(),
    }))
}

/// The mount in the container. Its source is the guest path of the device before it, or below that.
pub(crate) fn in_container(container: &str, plan: &MountPlan) -> Want {
    Want::ContainerMount(ContainerMountNeed {
        container: container.to_owned(),
        source: plan.source.clone(),
        destination: plan.destination.clone(),
        read_only: plan.read_only,
    })
}

/// The mount a want stands for, if it stands for one.
pub(crate) fn mount_index(needs: &Needs, want: usize) -> Option<usize> {
    let layers = needs
        .layers
        .as_ref()
        .map_or(0, |layers| layers.read_only.len() + 1);
    let of_mounts = want.checked_sub(layers)?;
    match needs.disks.get(of_mounts) {
        Some(disk) => Some(disk.mount_index),
        None => needs.shares.get(of_mounts - needs.disks.len())?.mount_index,
    }
}

/// A file's identity in the ledger's words.
#[must_use]
pub fn file_key(identity: FileId) -> FileKey {
    FileKey {
        device: identity.device,
        inode: identity.inode,
    }
}
