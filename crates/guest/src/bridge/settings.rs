//! `ModifySettings`: which part serves which resource (GCS bridge protocol §7).

use cofferdam_protocol::settings::{ModificationRequest, RequestType, Resource};

use crate::{
    agent::Agent,
    error::{AgentError, Result},
    storage::{overlay, pmem, share},
};

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
        (_, Resource::Network(_)) => Err(AgentError::NotSupported(
            "network adapters are not supported yet".into(),
        )),
        (_, Resource::Unknown { .. }) => Err(AgentError::Invalid(format!("invalid ResourceType {name:?}"))),
        (kind, _) => Err(AgentError::Invalid(format!(
            "invalid RequestType {kind:?} for {name}"
        ))),
    }
}
