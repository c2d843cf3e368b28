//! Mounts of running containers: a kind of device that is no device, only a mount step and its removal.

use crate::{
    device::{At, ContainerMountNeed, Device},
    ledger::Table,
    request::{GuestRequest, HostRequest},
};

impl ContainerMountNeed {
    /// The path the ledger keeps it under. A destination is one container's own, so the container is part of it.
    pub(crate) fn path(&self) -> String {
        format!("{}:{}", self.container, self.destination)
    }
}

/// A mount of a running container: like combined layers no device of the host, only a mount of the guest.
#[derive(Debug, Clone)]
pub(crate) struct Injected(pub(crate) ContainerMountNeed);

impl Device for Injected {
    type Key = (String, String);
    type Place = ();
    const TABLE: Table = Table::ContainerMounts;

    fn key(&self) -> Self::Key {
        (self.0.container.clone(), self.0.destination.clone())
    }

    fn place(_index: usize, _serial: u64) {}

    fn join(&mut self, _other: &Self, _fixed: bool) -> Result<(), String> {
        // The second would cover the first, and taking the first out would find the second on top.
        Err(format!(
            "container {} has a mount on {} already that was added while it runs",
            self.0.container, self.0.destination
        ))
    }

    fn attach(&self, (): ()) -> Option<HostRequest> {
        None
    }

    fn mount(&self, (): (), _at: &At) -> GuestRequest {
        let ContainerMountNeed {
            container,
            source,
            destination,
            read_only,
        } = self.0.clone();
        GuestRequest::AddContainerMount {
            container,
            source,
            destination,
            read_only,
        }
    }

    fn unmount(&self, (): (), _at: &At) -> GuestRequest {
        let ContainerMountNeed {
            container,
            source,
            destination,
            read_only,
        } = self.0.clone();
        GuestRequest::RemoveContainerMount {
            container,
            source,
            destination,
            read_only,
        }
    }

    fn eject(&self, (): ()) -> Option<GuestRequest> {
        None
    }

    fn detach(&self, (): ()) -> Option<HostRequest> {
        None
    }

    fn delete(&self) -> Option<HostRequest> {
        None
    }
}
