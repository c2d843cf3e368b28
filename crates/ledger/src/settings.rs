//! The guest's steps as the guest protocol says them: one conversion for whoever performs a step and whoever only
//! shows it.

use cofferdam_protocol::{
    ports,
    settings::{
        CombinedLayers, ContainerMount, Layer, MappedDirectory, MappedVirtualDisk, ModificationRequest,
        Resource, ScsiDevice, VpmemDevice,
    },
};

use crate::{
    address::ScsiAddress,
    request::{GuestRequest, ShareId},
};

/// The `ModifySettings` request that asks the guest for `request` (GCS bridge protocol §7).
///
/// Whom it is sent to says [`GuestRequest::container`].
///
/// A removal carries the members of its addition, rights included: some guests need them to undo what they did.
/// Only an overlay is removed by its root alone (§7.4).
impl From<&GuestRequest> for ModificationRequest {
    fn from(request: &GuestRequest) -> Self {
        use GuestRequest as G;
        use ModificationRequest as M;
        let disk = |address: &ScsiAddress, mount_path: &str, read_only: bool| {
            Resource::MappedVirtualDisk(MappedVirtualDisk {
                mount_path: mount_path.to_owned(),
                lun: address.lun,
                controller: address.controller,
                read_only,
                ..Default::default()
            })
        };
        let vpmem = |index: u32, mount_path: &str| {
            Resource::VpmemDevice(VpmemDevice {
                device_number: index,
                mount_path: mount_path.to_owned(),
                ..Default::default()
            })
        };
        let share = |share: &ShareId, mount_path: &str, read_only: bool| {
            Resource::MappedDirectory(MappedDirectory {
                mount_path: mount_path.to_owned(),
                port: ports::PLAN9,
                share_name: share.to_string(),
                read_only,
            })
        };
        let container_mount = |source: &str, destination: &str, read_only: bool| {
            Resource::ContainerMount(ContainerMount {
                source: source.to_owned(),
                destination: destination.to_owned(),
                read_only,
            })
        };
        match request {
            G::MountScsi {
                address,
                guest_path,
                read_only,
            } => M::add(disk(address, guest_path, *read_only)),
            G::UnmountScsi {
                address,
                guest_path,
                read_only,
            } => M::remove(disk(address, guest_path, *read_only)),
            G::EjectScsi { address } => M::remove(Resource::ScsiDevice(ScsiDevice {
                controller: address.controller,
                lun: address.lun,
            })),
            G::MountVpmem { index, guest_path } => M::add(vpmem(*index, guest_path)),
            G::UnmountVpmem { index, guest_path } => M::remove(vpmem(*index, guest_path)),
            G::MountShare {
                share: id,
                guest_path,
                read_only,
            } => M::add(share(id, guest_path, *read_only)),
            G::UnmountShare {
                share: id,
                guest_path,
                read_only,
            } => M::remove(share(id, guest_path, *read_only)),
            G::CombineLayers {
                root,
                layers,
                scratch,
            } => M::add(Resource::CombinedLayers(CombinedLayers {
                container_root_path: root.clone(),
                layers: layers
                    .iter()
                    .map(|path| Layer {
                        path: path.clone(),
                        ..Default::default()
                    })
                    .collect(),
                scratch_path: scratch.clone(),
                ..Default::default()
            })),
            G::RemoveCombinedLayers { root } => M::remove(Resource::CombinedLayers(CombinedLayers {
                container_root_path: root.clone(),
                ..Default::default()
            })),
            G::AddContainerMount {
                source,
                destination,
                read_only,
                ..
            } => M::add(container_mount(source, destination, *read_only)),
            G::RemoveContainerMount {
                source,
                destination,
                read_only,
                ..
            } => M::remove(container_mount(source, destination, *read_only)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wire(request: GuestRequest) -> Value {
        serde_json::to_value(ModificationRequest::from(&request)).unwrap()
    }

    #[test]
    fn each_guest_step_has_the_member_names_of_the_protocol() {
        let address = ScsiAddress {
            controller: 1,
            lun: 2,
        };
        let (path, share) = ("/m".to_owned(), ShareId(3));
        let disk = json!({"MountPath": "/m", "Lun": 2, "Controller": 1, "ReadOnly": true});
        let pmem = json!({"DeviceNumber": 4, "MountPath": "/m"});
        let directory = json!({"MountPath": "/m", "Port": 564, "ShareName": "3", "ReadOnly": true});
        let container_mount = json!({"Source": "/m", "Destination": "/d", "ReadOnly": true});
        let say = |request_type: &str, resource_type: &str, settings: Value| json!({"RequestType": request_type, "ResourceType": resource_type, "Settings": settings});
        for (request, expected) in [
            (
                GuestRequest::MountScsi {
                    address,
                    guest_path: path.clone(),
                    read_only: true,
                },
                say("Add", "MappedVirtualDisk", disk.clone()),
            ),
            (
                GuestRequest::UnmountScsi {
                    address,
                    guest_path: path.clone(),
                    read_only: true,
                },
                say("Remove", "MappedVirtualDisk", disk),
            ),
            (
                GuestRequest::EjectScsi { address },
                say("Remove", "SCSIDevice", json!({"Controller": 1, "Lun": 2})),
            ),
            (
                GuestRequest::MountVpmem {
                    index: 4,
                    guest_path: path.clone(),
                },
                say("Add", "VPMemDevice", pmem.clone()),
            ),
            (
                GuestRequest::UnmountVpmem {
                    index: 4,
                    guest_path: path.clone(),
                },
                say("Remove", "VPMemDevice", pmem),
            ),
            (
                GuestRequest::MountShare {
                    share,
                    guest_path: path.clone(),
                    read_only: true,
                },
                say("Add", "MappedDirectory", directory.clone()),
            ),
            (
                GuestRequest::UnmountShare {
                    share,
                    guest_path: path,
                    read_only: true,
                },
                say("Remove", "MappedDirectory", directory),
            ),
            (
                GuestRequest::CombineLayers {
                    root: "/r".into(),
                    layers: vec!["/l1".into(), "/l0".into()],
                    scratch: "/s".into(),
                },
                say(
                    "Add",
                    "CombinedLayers",
                    json!({
                        "ContainerRootPath": "/r",
                        "Layers": [{"Path": "/l1"}, {"Path": "/l0"}],
                        "ScratchPath": "/s",
                    }),
                ),
            ),
            (
                GuestRequest::RemoveCombinedLayers { root: "/r".into() },
                say("Remove", "CombinedLayers", json!({"ContainerRootPath": "/r"})),
            ),
            (
                GuestRequest::AddContainerMount {
                    container: "c".into(),
                    source: "/m".into(),
                    destination: "/d".into(),
                    read_only: true,
                },
                say("Add", "CofferdamContainerMount", container_mount.clone()),
            ),
            (
                GuestRequest::RemoveContainerMount {
                    container: "c".into(),
                    source: "/m".into(),
                    destination: "/d".into(),
                    read_only: true,
                },
                say("Remove", "CofferdamContainerMount", container_mount),
            ),
        ] {
            assert_eq!(wire(request), expected);
        }
    }

    #[test]
    fn zeros_are_left_out() {
        let address = ScsiAddress {
            controller: 0,
            lun: 0,
        };
        let request = GuestRequest::MountScsi {
            address,
            guest_path: "/m".into(),
            read_only: false,
        };
        assert_eq!(wire(request)["Settings"], json!({"MountPath": "/m"}));
        assert_eq!(wire(GuestRequest::EjectScsi { address })["Settings"], json!({}));
    }
}
