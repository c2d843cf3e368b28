//! How large a VM is: what its containers may use together, and what the VM needs for itself.

use cofferdam_plan::Spec;
use cofferdam_pod::{PodError, PodLimits};
use cofferdam_protocol::annotations::CONTAINER_TYPE;
use serde_json::Value;

/// What the guest's kernel and agent need, whatever the VM's size: docs/decisions/0123-sizing-by-pod-limits.md.
const OVERHEAD_BYTES: u64 = 128 << 20;
/// For this many bytes the kernel needs one more, to keep book of them and to stay able to act.
const BYTES_PER_OVERHEAD_BYTE: u64 = 16;

/// Memory and processors of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) memory_bytes: u64,
    pub(crate) cpus: u32,
}

/// What the containers of a VM may use together: the sandbox's annotations. A container without a pod has limits of its own.
pub(crate) fn limits(spec: &Spec) -> Result<PodLimits, PodError> {
    let limits = PodLimits::of_sandbox(spec)?;
    let of_a_pod = spec
        .document()
        .get("annotations")
        .and_then(|annotations| annotations.get(CONTAINER_TYPE))
        .is_some_and(Value::is_string);
    if of_a_pod || limits != PodLimits::default() {
        return Ok(limits);
    }
    Ok(PodLimits::of_container(spec))
}

/// The VM for these limits: at least `least`, and beyond it no more than `most`.
pub(crate) fn size(limits: &PodLimits, least: Size, most: Size) -> Size {
    let memory = limits.memory_bytes.map_or(0, with_overhead);
    let cpus = limits
        .cpus()
        .map_or(0, |cpus| u32::try_from(cpus).unwrap_or(u32::MAX));
    Size {
        memory_bytes: memory.min(most.memory_bytes).max(least.memory_bytes),
        cpus: cpus.min(most.cpus).max(least.cpus),
    }
}

/// The memory of a VM in which containers can use this much.
fn with_overhead(bytes: u64) -> u64 {
    bytes
        .saturating_add(bytes / BYTES_PER_OVERHEAD_BYTE)
        .saturating_add(OVERHEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LEAST: Size = Size {
        memory_bytes: 512 * MIB,
        cpus: 1,
    };
    const MOST: Size = Size {
        memory_bytes: 8192 * MIB,
        cpus: 4,
    };

    fn sized(memory_mib: Option<u64>, quota_us: Option<u64>) -> (u64, u32) {
        let limits = PodLimits {
            memory_bytes: memory_mib.map(|mib| mib * MIB),
            cpu_quota_us: quota_us,
            ..PodLimits::default()
        };
        let size = size(&limits, LEAST, MOST);
        (size.memory_bytes / MIB, size.cpus)
    }

    fn limits_of(document: &str) -> PodLimits {
        let text = format!(r#"{{"ociVersion":"1.0.2","root":{{"path":"rootfs"}},{document}}}"#);
        limits(&Spec::parse(&text).unwrap()).unwrap()
    }

    #[test]
    fn a_vm_has_what_its_containers_may_use_and_its_own_need_within_the_bounds() {
        assert_eq!(sized(None, None), (512, 1));
        assert_eq!(sized(Some(64), Some(50_000)), (512, 1));
        assert_eq!(sized(Some(1024), Some(250_000)), (1024 + 64 + 128, 3));
        assert_eq!(sized(Some(8192), Some(900_000)), (8192, 4));
        assert_eq!(sized(Some(u64::MAX / MIB), Some(u64::MAX)), (8192, 4));
    }

    #[test]
    fn what_is_configured_as_the_least_holds_on_a_smaller_host_too() {
        let small = Size {
            memory_bytes: 256 * MIB,
            cpus: 1,
        };
        let limits = PodLimits {
            memory_bytes: Some(1 << 40),
            ..PodLimits::default()
        };
        assert_eq!(size(&limits, LEAST, small), LEAST);
    }

    #[test]
    fn a_container_without_a_pod_has_a_vm_for_its_own_limits_and_a_sandbox_for_its_pods() {
        let own = r#""linux":{"resources":{"memory":{"limit":4096},"cpu":{"quota":200000}}}"#;
        let alone = limits_of(own);
        assert_eq!((alone.memory_bytes, alone.cpus()), (Some(4096), Some(2)));
        let sandbox = r#""annotations":{"io.kubernetes.cri.container-type":"sandbox"}"#;
        assert_eq!(limits_of(&format!("{own},{sandbox}")), PodLimits::default());
        let told = r#""annotations":{"io.kubernetes.cri.sandbox-memory":"8192"}"#;
        assert_eq!(limits_of(&format!("{own},{told}")).memory_bytes, Some(8192));
    }
}
