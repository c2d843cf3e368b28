//! A container's figures, from the guest's JSON to containerd's message.

use containerd_shim::protos::{
    cgroups::metrics::{CPUStat, CPUUsage, MemoryEntry, MemoryStat, Metrics, PidsStat, Throttle},
    protobuf::{Message, well_known_types::any::Any},
};
use serde_json::Value;

/// The name containerd's clients know the message by.
const TYPE: &str = "io.containerd.cgroups.v1.Metrics";

/// The message, packed. What the guest does not say is zero.
pub(crate) fn packed(figures: &Value) -> containerd_shim::protos::protobuf::Result<Any> {
    let mut any = Any::new();
    any.type_url = TYPE.to_owned();
    any.value = metrics(figures).write_to_bytes()?;
    Ok(any)
}

fn number(figures: &Value, pointer: &str) -> u64 {
    figures.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn metrics(figures: &Value) -> Metrics {
    let get = |pointer: &str| number(figures, pointer);
    Metrics {
        pids: Some(PidsStat {
            current: get("/pids/current"),
            limit: get("/pids/limit"),
            ..PidsStat::default()
        })
        .into(),
        cpu: Some(CPUStat {
            usage: Some(CPUUsage {
                total: get("/cpu/usage/total"),
                kernel: get("/cpu/usage/kernel"),
                user: get("/cpu/usage/user"),
                ..CPUUsage::default()
            })
            .into(),
            throttling: Some(Throttle {
                periods: get("/cpu/throttling/periods"),
                throttled_periods: get("/cpu/throttling/throttled_periods"),
                throttled_time: get("/cpu/throttling/throttled_time"),
                ..Throttle::default()
            })
            .into(),
            ..CPUStat::default()
        })
        .into(),
        memory: Some(memory(figures)).into(),
        ..Metrics::default()
    }
}

fn memory(figures: &Value) -> MemoryStat {
    let get = |name: &str| number(figures, &format!("/memory/{name}"));
    let entry = |name: &str| MemoryEntry {
        limit: get(&format!("{name}/limit")),
        usage: get(&format!("{name}/usage")),
        max: get(&format!("{name}/max")),
        failcnt: get(&format!("{name}/failcnt")),
        ..MemoryEntry::default()
    };
    // Of a container's own group: with those below it, which the total_* members are for, it is the same.
    MemoryStat {
        cache: get("cache"),
        total_cache: get("cache"),
        rss: get("rss"),
        total_rss: get("rss"),
        rss_huge: get("rss_huge"),
        mapped_file: get("mapped_file"),
        dirty: get("dirty"),
        writeback: get("writeback"),
        pg_fault: get("pg_fault"),
        pg_maj_fault: get("pg_maj_fault"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        total_inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        usage: Some(entry("usage")).into(),
        swap: Some(entry("swap")).into(),
        ..MemoryStat::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_arrive_under_the_name_clients_know() {
        let figures = serde_json::json!({
            "pids": {"current": 3, "limit": 10},
            "cpu": {"usage": {"total": 5_000_000_000_u64}},
            "memory": {"rss": 4096, "usage": {"usage": 8192, "limit": 1 << 20}},
        });
        let any = packed(&figures).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let read = Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!((read.pids.current, read.pids.limit), (3, 10));
        assert_eq!(read.cpu.usage.total, 5_000_000_000);
        assert_eq!((read.memory.rss, read.memory.usage.limit), (4096, 1 << 20));
        assert_eq!(read.memory.swap.usage, 0);
    }
}
