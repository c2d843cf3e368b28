//! `cofferdam stats`: what containers use, now or again and again.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use cofferdam_explain::columns;
use cofferdam_owner::Root;
use containerd_shim::{
    api::StatsRequest,
    protos::{cgroups::metrics::Metrics, protobuf::Message as _, ttrpc::context::Context},
};
use serde::Serialize;
use tokio::time::sleep;

use super::client::{Task, told};
use crate::args::{Format, StatsArgs};

/// Between two looks, from which the share of a processor is computed.
const PERIOD: Duration = Duration::from_secs(1);
const HEADING: [&str; 6] = ["ID", "CPU", "CPU TIME", "MEMORY", "LIMIT", "PIDS"];
/// A limit that is as good as none.
const NO_LIMIT: u64 = 1 << 60;
/// Moves the cursor up there and takes away what is below it.
const HOME: &str = "\x1b[H\x1b[J";
const CLEAR: &str = "\x1b[2J";

/// What a container uses.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    id: String,
    /// Of one processor, during the last second; 250 are two and a half.
    cpu_percent: f64,
    cpu_ns: u64,
    memory_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_limit_bytes: Option<u64>,
    pids: u64,
}

/// Figures of one moment.
struct Sample {
    at: Instant,
    figures: Metrics,
}

type Samples = BTreeMap<String, Sample>;

pub(super) async fn show(root: &Root, args: &StatsArgs) -> Result<()> {
    let goes_on = !args.no_stream && args.format == Format::Table && std::io::stdout().is_terminal();
    let mut before = sampled(root, &args.ids).await?;
    if goes_on {
        print(CLEAR);
    }
    loop {
        sleep(PERIOD).await;
        let now = sampled(root, &args.ids).await?;
        let usages: Vec<_> = now
            .iter()
            .filter_map(|(id, sample)| Some(usage(id, before.get(id)?, sample)))
            .collect();
        let text = match args.format {
            Format::Json => serde_json::to_string_pretty(&usages)? + "\n",
            Format::Table => table(&usages),
        };
        let start = if goes_on { HOME } else { "" };
        if !print(&format!("{start}{text}")) || !goes_on {
            return Ok(());
        }
        before = now;
    }
}

/// Of these containers, or of all that run.
async fn sampled(root: &Root, ids: &[String]) -> Result<Samples> {
    let entries = match ids {
        [] => root.entries()?,
        ids => ids.iter().map(|id| root.entry(id)).collect::<Result<_, _>>()?,
    };
    let mut samples = Samples::new();
    for entry in entries {
        let id = entry.id();
        let sample = async { sample(&Task::of(entry)?).await };
        match sample.await {
            Ok(sample) => drop(samples.insert(id, sample)),
            // It has just ended, or has not begun.
            Err(_) if ids.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(samples)
}

async fn sample(task: &Task) -> Result<Sample> {
    let request = StatsRequest {
        id: task.id.clone(),
        ..StatsRequest::default()
    };
    let answer = told(task.client.stats(Context::default(), &request).await)?;
    let figures = Metrics::parse_from_bytes(&answer.stats.value).context("the figures")?;
    let at = Instant::now();
    Ok(Sample { at, figures })
}

fn usage(id: &str, before: &Sample, now: &Sample) -> Usage {
    let cpu_ns = now.figures.cpu.usage.total;
    let used = cpu_ns.saturating_sub(before.figures.cpu.usage.total);
    let passed = now.at.duration_since(before.at).as_nanos().max(1);
    let memory = &now.figures.memory.usage;
    Usage {
        id: id.to_owned(),
        cpu_percent: used as f64 * 100.0 / passed as f64,
        cpu_ns,
        memory_bytes: memory.usage,
        memory_limit_bytes: (1..NO_LIMIT).contains(&memory.limit).then_some(memory.limit),
        pids: now.figures.pids.current,
    }
}

fn table(usages: &[Usage]) -> String {
    let mut lines = vec![HEADING.map(str::to_owned)];
    lines.extend(usages.iter().map(|usage| {
        [
            usage.id.clone(),
            format!("{:.1} %", usage.cpu_percent),
            format!("{:.2} s", usage.cpu_ns as f64 / 1e9),
            mebibytes(usage.memory_bytes),
            usage.memory_limit_bytes.map_or("-".to_owned(), mebibytes),
            usage.pids.to_string(),
        ]
    }));
    columns::render(&lines)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Whether somebody reads it.
fn print(text: &str) -> bool {
    let mut output = std::io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at: Instant, cpu_ns: u64, limit: u64) -> Sample {
        let mut figures = Metrics::new();
        figures
            .cpu
            .mut_or_insert_default()
            .usage
            .mut_or_insert_default()
            .total = cpu_ns;
        let memory = figures
            .memory
            .mut_or_insert_default()
            .usage
            .mut_or_insert_default();
        (memory.usage, memory.limit) = (3 << 19, limit);
        figures.pids.mut_or_insert_default().current = 2;
        Sample { at, figures }
    }

    #[test]
    fn the_share_of_a_processor_is_that_of_the_time_between_two_looks() {
        let begin = Instant::now();
        let before = at(begin, 1_000_000_000, u64::MAX);
        let after = at(begin + Duration::from_secs(2), 6_000_000_000, 64 << 20);
        let used = usage("web", &before, &after);
        assert!((used.cpu_percent - 250.0).abs() < 1e-9);
        assert_eq!(used.memory_limit_bytes, Some(64 << 20));
        let shown = table(&[used, usage("db", &after, &before)]);
        assert_eq!(
            shown.lines().collect::<Vec<_>>(),
            [
                "ID   CPU      CPU TIME  MEMORY   LIMIT     PIDS",
                "web  250.0 %  6.00 s    1.5 MiB  64.0 MiB  2",
                "db   0.0 %    1.00 s    1.5 MiB  -         2",
            ]
        );
    }
}
