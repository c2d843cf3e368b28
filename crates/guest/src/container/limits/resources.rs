//! `linux.resources` of the OCI runtime specification as files of a cgroup v2.
//!
//! The members were named for cgroup v1. The conversions are those every runtime uses: a swap limit without the
//! memory's own, CPU shares and block I/O weights on the scales of version 2. A member that is absent, `null` or,
//! where the specification calls it unset, 0, changes nothing.

use std::{collections::BTreeMap, fmt::Display};

use serde::Deserialize;
use serde_json::Value;

use super::{Facts, ids::Ids};
use crate::error::{AgentError, Result};

/// Longest value of a file that is named directly.
const VALUE_BYTES: usize = 4096;

/// What to write, and what cannot be held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In this order.
    pub(super) writes: Vec<Write>,
    /// Members that mean nothing in this VM, with the reason.
    pub(super) not_usable: Vec<String>,
    /// Refuse the change if more memory than this is in use: the document asks for the check.
    pub(super) at_least: Option<u64>,
}

/// One value of one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// The document's member, for errors.
    pub(super) member: String,
    pub(super) file: String,
    pub(super) value: String,
    pub(super) if_absent: Absent,
}

/// What it means if a file is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// The kernel cannot limit this.
    Refused,
    /// There is nothing to be limited.
    HoldsAnyway,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Resources {
    memory: Option<Memory>,
    cpu: Option<Cpu>,
    pids: Option<Pids>,
    #[serde(rename = "blockIO")]
    block_io: Option<BlockIo>,
    unified: Option<BTreeMap<String, String>>,
    hugepage_limits: Value,
    network: Value,
    rdma: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Memory {
    limit: Option<i64>,
    reservation: Option<i64>,
    swap: Option<i64>,
    kernel: Option<i64>,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: Option<i64>,
    swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller")]
    disable_oom_killer: Option<bool>,
    check_before_update: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Cpu {
    shares: Option<u64>,
    quota: Option<i64>,
    period: Option<u64>,
    burst: Option<u64>,
    idle: Option<i64>,
    realtime_runtime: Option<i64>,
    realtime_period: Option<u64>,
    cpus: Option<String>,
    mems: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pids {
    limit: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BlockIo {
    weight: Option<u64>,
    leaf_weight: Option<u64>,
    weight_device: Value,
    throttle_read_bps_device: Value,
    throttle_write_bps_device: Value,
    #[serde(rename = "throttleReadIOPSDevice")]
    throttle_read_iops_device: Value,
    #[serde(rename = "throttleWriteIOPSDevice")]
    throttle_write_iops_device: Value,
}

/// Converts `resources`. `devices` are not looked at: they are no limit.
pub(super) fn plan(resources: &Value, facts: &Facts) -> Result<Plan> {
    let mut plan = Plan::default();
    if resources.is_null() {
        return Ok(plan);
    }
    check_objects(resources)?;
    let resources: Resources = serde_json::from_value(resources.clone())
        .map_err(|error| AgentError::Invalid(format!("linux.resources: {error}")))?;
    plan.memory(&resources.memory.unwrap_or_default())?;
    plan.cpu(&resources.cpu.unwrap_or_default(), facts)?;
    match resources.pids.unwrap_or_default().limit {
        None => {}
        // What runc does: a container without a single process is none.
        Some(0) => plan.write("pids.limit", "pids.max", 1),
        Some(limit) if limit < 0 => plan.write("pids.limit", "pids.max", "max"),
        Some(limit) => plan.write("pids.limit", "pids.max", limit),
    }
    plan.block_io(&resources.block_io.unwrap_or_default())?;
    for (member, value, why) in [
        (
            "hugepageLimits",
            &resources.hugepage_limits,
            "the VM has no huge page file system",
        ),
        ("network", &resources.network, "the VM has no network classes"),
        ("rdma", &resources.rdma, "the VM has no RDMA devices"),
    ] {
        plan.not_here(member, value, why);
    }
    for (file, value) in resources.unified.unwrap_or_default() {
        let member = format!("unified.{file}");
        if !is_limit(&file) || value.len() > VALUE_BYTES {
            return Err(invalid(&member, "it is no limit of a cgroup"));
        }
        plan.write(&member, &file, value);
    }
    Ok(plan)
}

/// Decoding alone would take lists for objects without members.
fn check_objects(resources: &Value) -> Result<()> {
    let or_null = |value: &Value| value.is_object() || value.is_null();
    if !resources.is_object() {
        return Err(AgentError::Invalid("linux.resources: it is no object".into()));
    }
    for member in ["memory", "cpu", "pids", "blockIO", "unified"] {
        if !resources.get(member).is_none_or(or_null) {
            return Err(invalid(member, "it is no object"));
        }
    }
    Ok(())
}

impl Plan {
    fn write(&mut self, member: &str, file: &str, value: impl Display) {
        self.writes.push(Write {
            member: format!("linux.resources.{member}"),
            file: file.to_owned(),
            value: value.to_string(),
            if_absent: Absent::Refused,
        });
    }

    fn write_if_there(&mut self, member: &str, file: &str, value: impl Display) {
        self.write(member, file, value);
        if let Some(write) = self.writes.last_mut() {
            write.if_absent = Absent::HoldsAnyway;
        }
    }

    fn not_usable(&mut self, member: &str, why: impl Display) {
        self.not_usable.push(format!("linux.resources.{member}: {why}"));
    }

    /// The same for a member that says something.
    fn not_here(&mut self, member: &str, value: &Value, why: &str) {
        let says_something = match value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            Value::Object(members) => !members.is_empty(),
            _ => true,
        };
        if says_something {
            self.not_usable(member, why);
        }
    }

    fn memory(&mut self, memory: &Memory) -> Result<()> {
        let limit = bytes("memory.limit", memory.limit)?;
        match (bytes("memory.swap", memory.swap)?, limit) {
            (None, None) => {}
            // No swap beside memory without a limit can be told from its own limit.
            (None, Some(Bytes::Unlimited)) | (Some(Bytes::Unlimited), _) => {
                self.write_if_there("memory.swap", "memory.swap.max", "max");
            }
            (None, Some(Bytes::Exactly(_))) => {}
            (Some(Bytes::Exactly(both)), Some(Bytes::Exactly(memory))) => {
                // Version 1 counts memory and swap together.
                let swap = both.checked_sub(memory).ok_or_else(|| {
                    invalid(
                        "memory.swap",
                        format!("{both} is less than memory.limit {memory}"),
                    )
                })?;
                self.write_if_there("memory.swap", "memory.swap.max", swap);
            }
            (Some(Bytes::Exactly(_)), _) => {
                return Err(invalid("memory.swap", "it needs a memory.limit"));
            }
        }
        if let Some(limit) = limit {
            self.write("memory.limit", "memory.max", limit);
        }
        if let Some(reservation) = bytes("memory.reservation", memory.reservation)? {
            self.write("memory.reservation", "memory.low", reservation);
        }
        if memory.check_before_update == Some(true)
            && let Some(Bytes::Exactly(limit)) = limit
        {
            self.at_least = Some(limit);
        }
        for (member, set) in [
            ("memory.kernel", memory.kernel.is_some_and(|limit| limit > 0)),
            (
                "memory.kernelTCP",
                memory.kernel_tcp.is_some_and(|limit| limit > 0),
            ),
            ("memory.swappiness", memory.swappiness.is_some()),
            (
                "memory.disableOOMKiller",
                memory.disable_oom_killer.unwrap_or(false),
            ),
        ] {
            if set {
                self.not_usable(member, "cgroup v2 has nothing like it");
            }
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: &Cpu, facts: &Facts) -> Result<()> {
        if let Some(shares) = cpu.shares.filter(|shares| *shares > 0) {
            self.write("cpu.shares", "cpu.weight", weight_of_shares(shares));
        }
        let (quota, period) = (
            cpu.quota.filter(|quota| *quota != 0),
            cpu.period.filter(|period| *period != 0),
        );
        let quota = quota.map(|quota| match u64::try_from(quota) {
            Ok(quota) => quota.to_string(),
            Err(_) => "max".to_owned(),
        });
        let burst = cpu.burst.map(|burst| (burst, "cpu.max.burst"));
        if let Some((_, file)) = burst {
            // The old one may be more than the new time.
            self.write("cpu.burst", file, 0);
        }
        match (quota, period) {
            (None, None) => {}
            // The kernel keeps the period where only the time is written.
            (Some(quota), None) => self.write("cpu.quota", "cpu.max", quota),
            (quota, Some(period)) => {
                let quota = quota.unwrap_or_else(|| facts.cpu_quota.clone());
                self.write("cpu.quota", "cpu.max", format!("{quota} {period}"));
            }
        }
        if let Some((burst, file)) = burst {
            self.write("cpu.burst", file, burst);
        }
        if let Some(idle) = cpu.idle {
            self.write("cpu.idle", "cpu.idle", idle);
        }
        if cpu.realtime_runtime.is_some_and(|time| time != 0)
            || cpu.realtime_period.is_some_and(|time| time != 0)
        {
            self.not_usable("cpu.realtimeRuntime", "cgroup v2 has nothing like it");
        }
        for (member, file, wanted, there) in [
            ("cpu.cpus", "cpuset.cpus", &cpu.cpus, &facts.cpus),
            ("cpu.mems", "cpuset.mems", &cpu.mems, &facts.mems),
        ] {
            let Some(list) = wanted.as_deref().filter(|list| !list.trim().is_empty()) else {
                continue;
            };
            let wanted =
                Ids::parse(list).ok_or_else(|| invalid(member, format!("{list:?} is no list of numbers")))?;
            let usable = wanted.and(there);
            if there.is_empty() {
                self.not_usable(member, "the VM's kernel has no cpusets");
            } else if usable != wanted {
                self.not_usable(member, format!("of {wanted} the VM has {}", Nothing(&usable)));
            }
            if !usable.is_empty() {
                self.write(member, file, usable);
            }
        }
        Ok(())
    }

    fn block_io(&mut self, block_io: &BlockIo) -> Result<()> {
        if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
            if !(10..=1000).contains(&weight) {
                return Err(invalid(
                    "blockIO.weight",
                    format!("{weight} is not within 10 to 1000"),
                ));
            }
            let weight = 1 + (weight - 10) * 9999 / 990;
            self.write("blockIO.weight", "io.weight", format!("default {weight}"));
        }
        if block_io.leaf_weight.is_some_and(|weight| weight != 0) {
            self.not_usable("blockIO.leafWeight", "cgroup v2 has nothing like it");
        }
        for (member, value) in [
            ("blockIO.weightDevice", &block_io.weight_device),
            (
                "blockIO.throttleReadBpsDevice",
                &block_io.throttle_read_bps_device,
            ),
            (
                "blockIO.throttleWriteBpsDevice",
                &block_io.throttle_write_bps_device,
            ),
            (
                "blockIO.throttleReadIOPSDevice",
                &block_io.throttle_read_iops_device,
            ),
            (
                "blockIO.throttleWriteIOPSDevice",
                &block_io.throttle_write_iops_device,
            ),
        ] {
            self.not_here(member, value, "it numbers the host's own devices");
        }
        Ok(())
    }
}

/// A number of bytes that is a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bytes {
    Unlimited,
    Exactly(u64),
}

impl Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unlimited => f.write_str("max"),
            Self::Exactly(bytes) => bytes.fmt(f),
        }
    }
}

/// 0 is "not set", -1 "without a limit".
fn bytes(member: &str, value: Option<i64>) -> Result<Option<Bytes>> {
    match value {
        None | Some(0) => Ok(None),
        Some(-1) => Ok(Some(Bytes::Unlimited)),
        Some(value) => match u64::try_from(value) {
            Ok(bytes) => Ok(Some(Bytes::Exactly(bytes))),
            Err(_) => Err(invalid(member, format!("{value} is no number of bytes"))),
        },
    }
}

/// CPU shares (2 to 262144, usually 1024) as a weight of version 2 (1 to 10000, usually 100): the curve through these
/// three pairs on which the runtimes have agreed (opencontainers/cgroups, since its version 0.0.3).
fn weight_of_shares(shares: u64) -> u64 {
    const MOST: u64 = 262_144;
    if shares <= 2 {
        return 1;
    }
    if shares >= MOST {
        return 10_000;
    }
    // Below 2^18, so nothing is lost.
    let doublings = f64::from(u32::try_from(shares).unwrap_or(u32::MAX)).log2();
    let exponent = (doublings.powi(2) + 125.0 * doublings) / 612.0 - 7.0 / 34.0;
    // Within 1 and 10000 for every number of shares there is.
    10_f64.powf(exponent).ceil().clamp(1.0, 10_000.0) as u64
}

/// Whether a name of the member `unified` is a controller's file, so neither a path nor a file that moves processes.
fn is_limit(file: &str) -> bool {
    const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];
    let Some((controller, rest)) = file.split_once('.') else {
        return false;
    };
    CONTROLLERS.contains(&controller)
        && !rest.is_empty()
        && rest
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'_'))
}

/// A list, or that it is empty.
struct Nothing<'a>(&'a Ids);

impl Display for Nothing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            f.write_str("none")
        } else {
            self.0.fmt(f)
        }
    }
}

fn invalid(member: &str, why: impl Display) -> AgentError {
    AgentError::Invalid(format!("linux.resources.{member}: {why}"))
}

#[cfg(test)]
mod tests;
