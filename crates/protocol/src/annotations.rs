//! Annotations of a container's document that say what it is in its pod, as Kubernetes' runtime interface has them. The host
//! finds the VM by them, and the guest the sandbox.

/// The sandbox a container belongs to.
pub const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
/// Whether it is a `sandbox`, or a `container` of one.
pub const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
/// The memory all containers of a sandbox may use together, in bytes; 0 is no limit.
pub const SANDBOX_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
/// The processor time they may use together in each period, in microseconds; 0 is no limit.
pub const SANDBOX_CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
/// That period, in microseconds; 0 is the kernel's own.
pub const SANDBOX_CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";
/// The weight of their processor time, on the scale of cgroup v1; 0 is the kernel's own. Newer versions of containerd than
/// 1.6 write it.
pub const SANDBOX_CPU_SHARES: &str = "io.kubernetes.cri.sandbox-cpu-shares";
