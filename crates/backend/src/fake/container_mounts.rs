//! The fake guest's mounts of running containers, and what a kernel would refuse.

use std::collections::BTreeMap;

use cofferdam_protocol::{
    HResult,
    settings::{ContainerMount, ModificationRequest, RequestType, Resource},
};

use super::{guest::is_within, host::Refusal, vm::State};

/// Mounts of a running container by their destination.
pub type ContainerMounts = BTreeMap<String, ContainerMount>;

impl State {
    pub(super) fn container_mounts(&self, container_id: &str) -> ContainerMounts {
        let container = self.containers.get(container_id);
        container
            .map(|container| container.injected.clone())
            .unwrap_or_default()
    }

    /// Performs one modification of a container.
    pub(super) fn modify_container(
        &mut self,
        container_id: &str,
        request: &ModificationRequest,
    ) -> Result<(), Refusal> {
        match (&request.resource, request.request_type) {
            (Resource::ContainerMount(mount), RequestType::Add) => self.inject(container_id, mount),
            (Resource::ContainerMount(mount), RequestType::Remove) => {
                self.take_out(container_id, &mount.destination)
            }
            (Resource::ContainerConstraints(limits), RequestType::Update) => {
                self.constrain(container_id, limits)
            }
            (Resource::Freezer(freezer), RequestType::Update) => self.freeze(container_id, freezer.frozen),
            _ => Err(Refusal::violation(
                "a modification of the VM is sent to a container",
            )),
        }
    }

    fn inject(&mut self, container_id: &str, mount: &ContainerMount) -> Result<(), Refusal> {
        let ContainerMount {
            source, destination, ..
        } = mount;
        let there = source.starts_with("sandbox://") || self.mounts.covers(source);
        let container = self.container(container_id)?;
        if !container.is_running() {
            let message = format!("container {container_id} does not run");
            return Err(Refusal::with(HResult::INVALID_STATE, message));
        }
        if !there {
            return Err(Refusal::violation(format!(
                "{destination} of container {container_id} wants {source}, where nothing is mounted"
            )));
        }
        if container.injected.contains_key(destination) {
            return Err(Refusal::violation(format!(
                "container {container_id} has a mount on {destination} already"
            )));
        }
        container.injected.insert(destination.clone(), mount.clone());
        Ok(())
    }

    /// What is absent counts as done, and so does a container that has ended or is not known.
    fn take_out(&mut self, container_id: &str, destination: &str) -> Result<(), Refusal> {
        let Ok(container) = self.container(container_id) else {
            return Ok(());
        };
        let below = |other: &&String| *other != destination && is_within(other, destination);
        if let Some(above) = container.injected.keys().find(below) {
            return Err(Refusal::violation(format!(
                "{destination} of container {container_id} is unmounted below the mount {above}"
            )));
        }
        container.injected.remove(destination);
        Ok(())
    }
}
