//! From QEMU's start to the agent's first message: the median of several boots.
//!
//! `cargo xtask bench boot` runs this for each kernel and prints the table.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/real_pod/mod.rs"]
mod real_pod;

use std::time::Duration;

use cofferdam_vm::BootTimes;
use real_pod::Pod;
use serde_json::json;

const BOOTS: usize = 5;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run());
}

async fn run() {
    let mut boots = Vec::new();
    for _boot in 0..BOOTS {
        let pod = Pod::boot().await;
        boots.push(pod.vm.times());
        pod.shut_down().await;
    }
    let median = |part: fn(&BootTimes) -> Duration| {
        let mut sorted: Vec<_> = boots.iter().map(part).collect();
        sorted.sort();
        sorted[BOOTS / 2].as_secs_f64() * 1e3
    };
    let slowest = boots.iter().map(|times| times.agent).max().unwrap();
    let line = json!({
        "what": format!("median of {BOOTS} boots"),
        "QEMU answers, ms": median(|times| times.hypervisor),
        "the agent's first message, ms": median(|times| times.agent),
        "version agreed on, ms": median(|times| times.negotiated),
        "slowest first message, ms": slowest.as_secs_f64() * 1e3,
    });
    println!("{line}");
}
