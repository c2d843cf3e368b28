//! What is done to a running container besides signalling it: its limits are changed, it is paused and resumed, and it
//! is asked what it has used and whether it ran out of memory.

use cofferdam_bridge::{BridgeError, OomEvents};
use cofferdam_protocol::message::{Metrics, OutOfMemory};
use cofferdam_vm::UtilityVm;
use serde_json::Value;

use crate::{Handle, Running};

impl Handle {
    /// Makes all of the container's processes stand still. Until it is resumed it can be killed, but no process can
    /// be started in it. Repeating it is no error.
    ///
    /// # Errors
    /// The guest's: it does not run, or one of its processes does not stop in time, and then all go on.
    pub async fn pause(&self) -> Result<(), BridgeError> {
        self.bridge.pause(&self.id).await
    }

    /// Lets them go on. Repeating it is no error.
    ///
    /// # Errors
    /// The guest's.
    pub async fn resume(&self) -> Result<(), BridgeError> {
        self.bridge.resume(&self.id).await
    }

    /// Changes the container's limits: `resources` is `linux.resources` of the OCI runtime specification. What it
    /// does not name stays as it is; if one limit cannot be had, none is changed.
    ///
    /// # Errors
    /// The guest's, with the member that makes no sense or does not hold in the VM.
    pub async fn update(&self, resources: &Value) -> Result<(), BridgeError> {
        self.bridge.update_container(&self.id, resources).await
    }

    /// What the container has used since it was created; also after its end, until its state is deleted.
    ///
    /// # Errors
    /// The guest's.
    pub async fn stats(&self) -> Result<Metrics, BridgeError> {
        self.bridge.statistics(&self.id).await
    }

    /// Whether the container ran out of memory: how many of its processes were killed for it, and whether that is why
    /// it has ended. Also after its end, until its state is deleted.
    ///
    /// # Errors
    /// The guest's; [`BridgeError::Unsupported`] where it cannot tell.
    pub async fn out_of_memory(&self) -> Result<OutOfMemory, BridgeError> {
        self.bridge.out_of_memory(&self.id).await
    }

    /// Hears of each time the container runs out of memory.
    ///
    /// # Errors
    /// [`BridgeError::Unsupported`] where the guest cannot tell.
    pub fn oom(&self) -> Result<OomEvents, BridgeError> {
        self.bridge.container_oom(&self.id)
    }
}

impl Running {
    /// Hears of each time the container runs out of memory, as [`Handle::oom`].
    ///
    /// # Errors
    /// As there.
    pub fn oom(&self) -> Result<OomEvents, BridgeError> {
        self.handle().oom()
    }
}

/// Changes the limits of all containers of a VM together, as [`Handle::update`] those of one. A VM starts without any.
///
/// # Errors
/// The guest's; [`BridgeError::Unsupported`] where it has no such limits.
pub async fn limit_pod(vm: &UtilityVm, resources: &Value) -> Result<(), BridgeError> {
    vm.bridge().update_pod(resources).await
}

/// What all containers of a VM have used together.
///
/// # Errors
/// The guest's; [`BridgeError::Unsupported`] where it cannot tell.
pub async fn pod_stats(vm: &UtilityVm) -> Result<Metrics, BridgeError> {
    vm.bridge().pod_statistics().await
}
