//! `ModifySettings`: which part serves which resource (GCS bridge protocol §7).

use cofferdam_protocol::settings::{ModificationRequest, RequestType, Resource};

use crate::{
    agent::Agent,
    error::{AgentError, Result},
    storage::{overlay, pmem, share},
};

/// Performs one change of a container.
pub(super) fn modify_container(agent: &Agent, id: &str, request: &ModificationRequest) -> Result<()> {
    let containers = &agent.containers;
    match (request.request_type, &request.resource) {
        (RequestType::Add, Resource::ContainerMount(mount)) => containers.add_mount(id, mount),
        (RequestType::Remove, Resource::ContainerMount(mount)) => containers.remove_mount(id, mount),
        _ => {
            containers.get(id)?;
            Err(AgentError::NotSupported(
                "changing a container's limits is not supported yet".into(),
            ))
        }
    }
}

/// Performs one change of the VM.
pub(super) fn modify(agent: &Agent, request: &ModificationRequest) -> Result<()> {
    use RequestType::{Add, Remove};
    let name = request.resource.name();
    match (request.request_type, &request.resource) {
        (Add, Resource::MappedVirtualDisk(disk)) => agent.disks.add(disk),
        (Remove, Resource::MappedVirtualDisk(disk)) => agent.disks.remove(disk),
        (Remove, Resource::ScsiDevice(device)) => agent.disks.eject(device.controller, device.lun),
        (Add, Resource::VpmemDevice(device)) => pmem::add(device),
        (Remove, Resource::VpmemDevice(device)) => pmem::remove(device),
        (Add, Resource::CombinedLayers(layers)) => overlay::add(layers),
        (Remove, Resource::CombinedLayers(layers)) => overlay::remove(layers),
        (Add, Resource::MappedDirectory(directory)) => share::add(directory, &agent.dialer),
        (Remove, Resource::MappedDirectory(directory)) => share::remove(directory),
        (Add, Resource::Network(adapter)) => agent.network.add(adapter),
        (Remove, Resource::Network(adapter)) => agent.network.remove(adapter),
        (_, Resource::ContainerMount(_)) => Err(AgentError::Invalid(format!(
            "{name} is for a container, not for the VM itself"
        ))),
        (_, Resource::Unknown { .. }) => Err(AgentError::Invalid(format!("invalid ResourceType {name:?}"))),
        (kind, _) => Err(AgentError::Invalid(format!(
            "invalid RequestType {kind:?} for {name}"
        ))),
    }
}
