//! `ModifySettings`: which part serves which resource (GCS bridge protocol §7).

use cofferdam_protocol::settings::{Constraints, ModificationRequest, RequestType, Resource};

use serde_json::Value;

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
        // The original sends the second; an absent type is the first.
        (RequestType::Add | RequestType::Update, Resource::ContainerConstraints(limits)) => {
            containers.constrain(id, linux(limits)?)
        }
        (RequestType::Update, Resource::Freezer(freezer)) => containers.pause(id, freezer.frozen),
        (kind, resource) => {
            containers.get(id)?;
            Err(AgentError::NotSupported(format!(
                "{kind:?} {} is not for a container",
                resource.name()
            )))
        }
    }
}

/// The limits for a Linux guest. Without any the request was meant for another.
fn linux(limits: &Constraints) -> Result<&Value> {
    if limits.linux.is_null() {
        return Err(AgentError::Invalid("there are no limits for Linux in it".into()));
    }
    Ok(&limits.linux)
}

/// Performs one change of the VM.
pub(super) fn modify(agent: &Agent, request: &ModificationRequest) -> Result<()> {
    use RequestType::{Add, Remove, Update};
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
        (Update, Resource::PodLimits(limits)) => agent.containers.constrain_pod(linux(limits)?),
        (_, Resource::ContainerMount(_) | Resource::ContainerConstraints(_) | Resource::Freezer(_)) => Err(
            AgentError::Invalid(format!("{name} is for a container, not for the VM itself")),
        ),
        (_, Resource::Unknown { .. }) => Err(AgentError::Invalid(format!("invalid ResourceType {name:?}"))),
        (kind, _) => Err(AgentError::Invalid(format!(
            "invalid RequestType {kind:?} for {name}"
        ))),
    }
}
