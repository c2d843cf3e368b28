//! What a service needs of the process it is in.

use std::{error::Error, path::Path, sync::Arc};

use async_trait::async_trait;
use cofferdam_plan::Spec;
use cofferdam_pod::{Pod, ProcessName, Streams};
use containerd_shim::protos::api::Mount;

/// Why an owner could not do something; its text holds its causes.
pub type OwnerFailure = Box<dyn Error + Send + Sync>;

/// A VM that runs, with its containers.
#[derive(Clone)]
pub struct Up {
    /// The containers.
    pub pod: Arc<Pod>,
    /// The process number of the hypervisor, which stands for every process in the VM.
    pub hypervisor: u32,
}

/// The process that owns a VM.
#[async_trait]
pub trait Owner: Send + Sync + 'static {
    /// The VM, waited for; for a container that is to be created.
    async fn up(&self) -> Result<Up, OwnerFailure>;

    /// The VM, if there is one.
    fn there(&self) -> Option<Up>;

    /// Reads a bundle's spec and makes its root ready: what `mounts` describe is mounted in the bundle. After a failure
    /// nothing is mounted.
    fn prepare(&self, bundle: &Path, mounts: &[Mount]) -> Result<Spec, OwnerFailure>;

    /// Takes back what [`Owner::prepare`] mounted. Harmless when repeated.
    fn clear(&self, bundle: &Path) -> Result<(), OwnerFailure>;

    /// The streams of a process that is about to be started, where the owner has made them itself; by default they are at
    /// the process's endpoints.
    fn streams(&self, name: &ProcessName) -> Option<Streams> {
        let _ = name;
        None
    }

    /// Ends the VM, which holds nothing any more, and then the process, once the answer has left.
    async fn shut_down(&self) -> Result<(), OwnerFailure>;
}
