//! A container's figures, from the guest's message to containerd's.

use cofferdam_protocol::message::{
    BlockIoMetrics, CpuMetrics, DeviceFigure, MemoryFigure, MemoryMetrics, Metrics as Figures, OomMetrics,
    PidsMetrics,
};
use containerd_shim::protos::{
    cgroups::metrics::{
        BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, MemoryEntry, MemoryOomControl, MemoryStat, Metrics,
        PidsStat, Throttle,
    },
    protobuf::{Message, well_known_types::any::Any},
};

/// The name containerd's clients know the message by.
const TYPE: &str = "io.containerd.cgroups.v1.Metrics";

/// The message, packed.
pub(crate) fn packed(figures: &Figures) -> containerd_shim::protos::protobuf::Result<Any> {
    let mut any = Any::new();
    any.type_url = TYPE.to_owned();
    any.value = metrics(figures).write_to_bytes()?;
    Ok(any)
}

fn metrics(figures: &Figures) -> Metrics {
    Metrics {
        pids: figures.pids.as_ref().map(pids).into(),
        cpu: figures.cpu.as_ref().map(cpu).into(),
        memory: figures.memory.as_ref().map(memory).into(),
        blkio: figures.blkio.as_ref().map(block_io).into(),
        memory_oom_control: figures.memory_oom_control.as_ref().map(out_of_memory).into(),
        ..Metrics::default()
    }
}

fn pids(figures: &PidsMetrics) -> PidsStat {
    PidsStat {
        current: figures.current,
        limit: figures.limit,
        ..PidsStat::default()
    }
}

fn cpu(figures: &CpuMetrics) -> CPUStat {
    let usage = CPUUsage {
        total: figures.usage.total,
        kernel: figures.usage.kernel,
        user: figures.usage.user,
        ..CPUUsage::default()
    };
    let throttling = Throttle {
        periods: figures.throttling.periods,
        throttled_periods: figures.throttling.throttled_periods,
        throttled_time: figures.throttling.throttled_time,
        ..Throttle::default()
    };
    CPUStat {
        usage: Some(usage).into(),
        throttling: Some(throttling).into(),
        ..CPUStat::default()
    }
}

fn memory(figures: &MemoryMetrics) -> MemoryStat {
    let entry = |figure: &MemoryFigure| MemoryEntry {
        limit: figure.limit,
        usage: figure.usage,
        max: figure.max,
        failcnt: figure.failcnt,
        ..MemoryEntry::default()
    };
    // Of a container's own group: with those below it, which the total_* members are for, it is the same.
    MemoryStat {
        cache: figures.cache,
        total_cache: figures.cache,
        rss: figures.rss,
        total_rss: figures.rss,
        mapped_file: figures.mapped_file,
        total_mapped_file: figures.mapped_file,
        inactive_file: figures.inactive_file,
        total_inactive_file: figures.inactive_file,
        dirty: figures.dirty,
        writeback: figures.writeback,
        pg_fault: figures.pg_fault,
        total_pg_fault: figures.pg_fault,
        pg_maj_fault: figures.pg_maj_fault,
        total_pg_maj_fault: figures.pg_maj_fault,
        usage: Some(entry(&figures.usage)).into(),
        swap: Some(entry(&figures.swap)).into(),
        ..MemoryStat::default()
    }
}

fn block_io(figures: &BlockIoMetrics) -> BlkIOStat {
    let entries = |list: &[DeviceFigure]| {
        let entry = |figure: &DeviceFigure| BlkIOEntry {
            op: figure.op.clone(),
            major: figure.major,
            minor: figure.minor,
            value: figure.value,
            ..BlkIOEntry::default()
        };
        list.iter().map(entry).collect()
    };
    BlkIOStat {
        io_service_bytes_recursive: entries(&figures.io_service_bytes_recursive),
        io_serviced_recursive: entries(&figures.io_serviced_recursive),
        ..BlkIOStat::default()
    }
}

fn out_of_memory(figures: &OomMetrics) -> MemoryOomControl {
    MemoryOomControl {
        oom_kill: figures.oom_kill,
        ..MemoryOomControl::default()
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
        let any = packed(&Figures::from_value(figures).unwrap()).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let read = Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!((read.pids.current, read.pids.limit), (3, 10));
        assert_eq!(read.cpu.usage.total, 5_000_000_000);
        assert_eq!((read.memory.rss, read.memory.usage.limit), (4096, 1 << 20));
        assert_eq!(read.memory.swap.usage, 0);
        assert!(read.blkio.is_none());
    }
}
