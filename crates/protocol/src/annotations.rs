//! Annotations of a container's document that say what it is in its pod, as Kubernetes' runtime interface has them. The host
//! finds the VM by them, and the guest the sandbox.

/// The sandbox a container belongs to.
pub const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
/// Whether it is a `sandbox`, or a `container` of one.
pub const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
