//! What the containers of a pod may use together, as Kubernetes' runtime interface says it: in annotations of the sandbox.
//!
//! The figures are the sums of what the pod's containers declare. A container that declares none is not in the sum, so with
//! it the sum bounds nothing: Kubernetes limits a pod only if every container is limited, and so does [`PodLimits::without`].

use std::ops::RangeInclusive;

use cofferdam_plan::Spec;
use cofferdam_protocol::annotations::{
    CONTAINER_TYPE, SANDBOX_CPU_PERIOD, SANDBOX_CPU_QUOTA, SANDBOX_CPU_SHARES, SANDBOX_MEMORY,
};
use serde_json::{Map, Value, json};

use crate::PodError;

/// The kernel's period where none is given (Linux, `Documentation/scheduler/sched-bwc.rst`), in microseconds.
const PERIOD_US: u64 = 100_000;

/// More memory than any machine has is a mistake rather than a limit.
const MEMORY_BYTES: RangeInclusive<u64> = 1..=1 << 60;
/// What the kernel takes for a period and, at least, for a quota.
const PERIODS_US: RangeInclusive<u64> = 1_000..=1_000_000;
const QUOTAS_US: RangeInclusive<u64> = 1_000..=1 << 44;
/// What the kernel took for shares in version 1.
const SHARES: RangeInclusive<u64> = 2..=262_144;

/// What containers may use together. A member that is `None` is without a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodLimits {
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time in each period, in microseconds.
    pub cpu_quota_us: Option<u64>,
    /// That period, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// The weight of their processor time, on the scale of cgroup v1.
    pub cpu_shares: Option<u64>,
}

impl PodLimits {
    /// Those of a sandbox, from its annotations. 0 is no limit, and for memory and quota -1 too.
    ///
    /// # Errors
    /// [`PodError::Annotation`] for what is no number, or one that cannot be held.
    pub fn of_sandbox(spec: &Spec) -> Result<Self, PodError> {
        Ok(Self {
            memory_bytes: figure(spec, SANDBOX_MEMORY, MEMORY_BYTES, true)?,
            cpu_quota_us: figure(spec, SANDBOX_CPU_QUOTA, QUOTAS_US, true)?,
            cpu_period_us: figure(spec, SANDBOX_CPU_PERIOD, PERIODS_US, false)?,
            cpu_shares: figure(spec, SANDBOX_CPU_SHARES, SHARES, false)?,
        })
    }

    /// Those of one container (`linux.resources` of the OCI runtime specification). What makes no sense is not a limit
    /// here: the guest refuses it by name.
    #[must_use]
    pub fn of_container(spec: &Spec) -> Self {
        let number = |member: &str, range: RangeInclusive<u64>| {
            let found = spec.document().pointer("/linux/resources")?.pointer(member)?;
            found.as_u64().filter(|number| range.contains(number))
        };
        Self {
            memory_bytes: number("/memory/limit", MEMORY_BYTES),
            cpu_quota_us: number("/cpu/quota", QUOTAS_US),
            cpu_period_us: number("/cpu/period", PERIODS_US),
            cpu_shares: number("/cpu/shares", SHARES),
        }
    }

    /// How many processors they can keep busy, from 1.
    #[must_use]
    pub fn cpus(&self) -> Option<u64> {
        let period = self.cpu_period_us.unwrap_or(PERIOD_US).max(1);
        self.cpu_quota_us.map(|quota| quota.div_ceil(period).max(1))
    }

    /// As `linux.resources` of the OCI runtime specification, or nothing where nothing is limited.
    #[must_use]
    pub fn resources(&self) -> Option<Value> {
        let mut cpu = Map::new();
        for (member, figure) in [("quota", self.cpu_quota_us), ("shares", self.cpu_shares)] {
            if let Some(figure) = figure {
                cpu.insert(member.to_owned(), figure.into());
            }
        }
        // A period limits nothing by itself.
        if let (Some(_), Some(period)) = (self.cpu_quota_us, self.cpu_period_us) {
            cpu.insert("period".to_owned(), period.into());
        }
        let mut resources = Map::new();
        if let Some(limit) = self.memory_bytes {
            resources.insert("memory".to_owned(), json!({ "limit": limit }));
        }
        if !cpu.is_empty() {
            resources.insert("cpu".to_owned(), cpu.into());
        }
        (!resources.is_empty()).then(|| resources.into())
    }

    /// What is left of them once this container is in the pod, and the change as `linux.resources`; nothing where they stay.
    /// The sandbox is nobody's container.
    pub(crate) fn without(&self, spec: &Spec) -> Option<(Self, Value)> {
        if spec.annotation(CONTAINER_TYPE).and_then(Value::as_str) == Some("sandbox") {
            return None;
        }
        let own = Self::of_container(spec);
        let mut left = *self;
        let mut change = Map::new();
        if self.memory_bytes.is_some() && own.memory_bytes.is_none() {
            left.memory_bytes = None;
            change.insert("memory".to_owned(), json!({ "limit": -1 }));
        }
        if self.cpu_quota_us.is_some() && own.cpu_quota_us.is_none() {
            left.cpu_quota_us = None;
            change.insert("cpu".to_owned(), json!({ "quota": -1 }));
        }
        (!change.is_empty()).then(|| (left, change.into()))
    }
}

fn figure(
    spec: &Spec,
    name: &'static str,
    range: RangeInclusive<u64>,
    unlimited: bool,
) -> Result<Option<u64>, PodError> {
    let Some(value) = spec.annotation(name) else {
        return Ok(None);
    };
    let refused = || PodError::Annotation {
        name,
        // What is shown of it is bounded: it may be anything.
        value: value.to_string().chars().take(64).collect(),
        from: *range.start(),
        to: *range.end(),
    };
    let text = value.as_str().ok_or_else(refused)?;
    match text.parse::<i64>().map_err(|_| refused())? {
        0 => Ok(None),
        -1 if unlimited => Ok(None),
        number => match u64::try_from(number) {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(refused()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(rest: Value) -> Spec {
        let mut document = json!({ "ociVersion": "1.0.2", "root": { "path": "rootfs" } });
        for (name, value) in rest.as_object().unwrap() {
            document[name] = value.clone();
        }
        Spec::parse(&document.to_string()).unwrap()
    }

    fn sandbox(annotations: Value) -> Result<PodLimits, String> {
        let found = PodLimits::of_sandbox(&spec(json!({ "annotations": annotations })));
        found.map_err(|error| error.to_string())
    }

    #[test]
    fn a_sandboxs_annotations_are_its_limits() {
        let limits = sandbox(json!({
            SANDBOX_MEMORY: "178257920",
            SANDBOX_CPU_QUOTA: "150000",
            SANDBOX_CPU_PERIOD: "100000",
            SANDBOX_CPU_SHARES: "102",
        }));
        let limits = limits.unwrap();
        assert_eq!(limits.memory_bytes, Some(178_257_920));
        assert_eq!(limits.cpus(), Some(2));
        assert_eq!(
            limits.resources().unwrap(),
            json!({
                "memory": { "limit": 178_257_920 },
                "cpu": { "quota": 150_000, "period": 100_000, "shares": 102 },
            })
        );
    }

    #[test]
    fn zero_and_what_is_not_said_are_no_limit() {
        let none = json!({ SANDBOX_MEMORY: "0", SANDBOX_CPU_QUOTA: "0", SANDBOX_CPU_SHARES: "0" });
        for annotations in [
            json!({}),
            none,
            json!({ SANDBOX_MEMORY: "-1", SANDBOX_CPU_QUOTA: "-1" }),
        ] {
            assert_eq!(sandbox(annotations).unwrap(), PodLimits::default());
        }
        // As kubelet has it for a pod without a quota.
        let period = sandbox(json!({ SANDBOX_CPU_QUOTA: "0", SANDBOX_CPU_PERIOD: "100000" })).unwrap();
        assert_eq!((period.cpus(), period.resources()), (None, None));
    }

    #[test]
    fn what_cannot_be_a_limit_is_refused_by_name() {
        for (name, value) in [
            (SANDBOX_MEMORY, json!("lots")),
            (SANDBOX_MEMORY, json!("-2")),
            (SANDBOX_MEMORY, json!("")),
            (SANDBOX_MEMORY, json!("1.5")),
            (SANDBOX_MEMORY, json!("9223372036854775807")),
            (SANDBOX_MEMORY, json!("99999999999999999999999999")),
            (SANDBOX_MEMORY, json!(1024)),
            (SANDBOX_CPU_QUOTA, json!("999")),
            (SANDBOX_CPU_QUOTA, json!("-100000")),
            (SANDBOX_CPU_PERIOD, json!("1")),
            (SANDBOX_CPU_PERIOD, json!("-1")),
            (SANDBOX_CPU_PERIOD, json!("1000001")),
            (SANDBOX_CPU_SHARES, json!("1")),
            (SANDBOX_CPU_SHARES, json!("x".repeat(1 << 20))),
        ] {
            let refused = sandbox(json!({ name: value })).unwrap_err();
            assert!(
                refused.contains(name) && refused.len() < 300,
                "{value}: {refused}"
            );
        }
    }

    #[test]
    fn processors_are_whole_ones_whatever_the_period() {
        for (quota, period, cpus) in [
            ("1000", "1000000", 1),
            ("100000", "0", 1),
            ("100001", "0", 2),
            ("400000", "50000", 8),
        ] {
            let limits = sandbox(json!({ SANDBOX_CPU_QUOTA: quota, SANDBOX_CPU_PERIOD: period }));
            assert_eq!(limits.unwrap().cpus(), Some(cpus), "{quota} in {period}");
        }
    }

    #[test]
    fn a_container_without_a_limit_lifts_that_limit_of_its_pod_and_the_sandbox_does_not() {
        let limits = sandbox(json!({ SANDBOX_MEMORY: "1048576", SANDBOX_CPU_QUOTA: "50000" })).unwrap();
        let memory = json!({ "memory": { "limit": 4096 } });
        let (left, change) = limits
            .without(&spec(json!({ "linux": { "resources": memory } })))
            .unwrap();
        assert_eq!(change, json!({ "cpu": { "quota": -1 } }));
        assert_eq!((left.memory_bytes, left.cpu_quota_us), (Some(1 << 20), None));
        let (left, change) = left.without(&spec(json!({}))).unwrap();
        assert_eq!(change, json!({ "memory": { "limit": -1 } }));
        assert_eq!(left.without(&spec(json!({}))), None);
        let sandbox = spec(json!({ "annotations": { CONTAINER_TYPE: "sandbox" } }));
        assert_eq!(limits.without(&sandbox), None);
    }
}
