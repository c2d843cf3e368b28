//! Resource figures of a container (GCS bridge protocol §6, GetProperties): the members of the cgroup v1 metrics message
//! that a Linux guest of today still has figures for.
//!
//! Every member is optional on the wire; a figure the guest does not give is 0, a group it does not give is absent.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::DecodeError;
use crate::json::{self, is_zero};

/// The figures of a container, or of all containers of a VM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<PidsMetrics>,
    /// CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuMetrics>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryMetrics>,
    /// Block devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio: Option<BlockIoMetrics>,
    /// Processes killed for want of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_oom_control: Option<OomMetrics>,
}

impl Metrics {
    /// What `LCOWMetrics` holds; members this type does not have are ignored.
    ///
    /// # Errors
    /// A member has another type.
    pub fn from_value(metrics: Value) -> Result<Self, DecodeError> {
        json::from_value(metrics).map_err(|source| DecodeError {
            what: "metrics message",
            source,
        })
    }
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PidsMetrics {
    /// How many there are.
    pub current: u64,
    /// How many there may be; 0 without a limit.
    pub limit: u64,
}

/// CPU time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuMetrics {
    /// What was used.
    pub usage: CpuUsage,
    /// What was withheld.
    pub throttling: CpuThrottling,
}

/// CPU time used, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuUsage {
    /// All of it.
    pub total: u64,
    /// In the kernel.
    pub kernel: u64,
    /// In programs.
    pub user: u64,
}

/// CPU time withheld by a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuThrottling {
    /// Periods that have passed while something wanted to run.
    pub periods: u64,
    /// Those in which the time was used up.
    pub throttled_periods: u64,
    /// How long it waited, in nanoseconds.
    pub throttled_time: u64,
}

/// Memory, in bytes unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryMetrics {
    /// Of files.
    pub cache: u64,
    /// Of programs.
    pub rss: u64,
    /// Mapped parts of files.
    pub mapped_file: u64,
    /// Of the cache: what has not been used for long, which goes first when memory runs out.
    pub inactive_file: u64,
    /// Parts of files still to be written.
    pub dirty: u64,
    /// Parts of files being written.
    pub writeback: u64,
    /// Page faults, a number.
    pub pg_fault: u64,
    /// Page faults that had to read, a number.
    pub pg_maj_fault: u64,
    /// Memory as it is charged.
    pub usage: MemoryFigure,
    /// Swap.
    pub swap: MemoryFigure,
}

/// A figure with its limit, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryFigure {
    /// Now.
    pub usage: u64,
    /// The most there ever was.
    pub max: u64,
    /// The limit; 0x7FFF_FFFF_FFFF_F000 without one, as cgroup v1 has it.
    pub limit: u64,
    /// How often the limit was reached, a number.
    pub failcnt: u64,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockIoMetrics {
    /// Bytes read and written.
    pub io_service_bytes_recursive: Vec<DeviceFigure>,
    /// Requests, a number.
    pub io_serviced_recursive: Vec<DeviceFigure>,
    /// Devices whose figures did not fit the answer. An extension of cofferdam's agent.
    #[serde(skip_serializing_if = "is_zero")]
    pub devices_omitted: u64,
}

/// One figure of one device of the VM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceFigure {
    /// `Read`, `Write` or `Discard`.
    pub op: String,
    /// Major number in the VM.
    pub major: u64,
    /// Minor number in the VM.
    pub minor: u64,
    /// The figure.
    pub value: u64,
}

/// Processes killed for want of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OomMetrics {
    /// How many.
    pub oom_kill: u64,
}
