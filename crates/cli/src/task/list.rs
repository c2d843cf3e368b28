//! `cofferdam ps` and `cofferdam stats`.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use cofferdam_explain::columns;
use cofferdam_owner::{Isolation, Root};
use containerd_shim::{
    api::{StatsRequest, Status},
    protos::{cgroups::metrics::Metrics, protobuf::Message as _, ttrpc::context::Context},
};
use serde::Serialize;

use super::client::{Task, told};
use crate::args::{Format, PsArgs, StatsArgs};

/// A container in the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    status: String,
    isolation: Option<Isolation>,
    pid: Option<u32>,
    bundle: Option<String>,
}

/// What a container uses.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    id: String,
    cpu_ns: u64,
    memory_bytes: u64,
    memory_limit_bytes: u64,
    pids: u64,
}

pub(super) async fn ps(root: &Root, args: &PsArgs) -> Result<()> {
    let mut rows = Vec::new();
    for entry in root.entries()? {
        let ended = entry.ended();
        if ended.is_some() && !args.all {
            continue;
        }
        let record = entry.record().ok();
        let status = match (entry.is_alive(), Task::of(entry.clone())) {
            (false, _) => ended.map_or("dead".to_owned(), |ended| match ended.reason {
                Some(reason) => format!("ended ({}): {reason}", ended.status),
                None => format!("ended ({})", ended.status),
            }),
            (true, Ok(task)) => task
                .state()
                .await
                .map_or_else(|_| "starting".to_owned(), |state| word(&state)),
            // In process isolation there is no task API, and a VM may not run yet.
            (true, Err(_)) => "alive".to_owned(),
        };
        rows.push(Row {
            id: entry.id(),
            status,
            isolation: record.as_ref().map(|record| record.isolation),
            pid: record.as_ref().map(|record| record.owner.pid),
            bundle: record.map(|record| record.bundle.display().to_string()),
        });
    }
    if args.quiet {
        let names: String = rows.iter().map(|row| format!("{}\n", row.id)).collect();
        return print(&names);
    }
    let lines = rows.iter().map(|row| {
        [
            row.id.clone(),
            row.status.clone(),
            row.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            row.bundle.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    show(args.format, &rows, ["ID", "STATUS", "OWNER", "BUNDLE"], lines)
}

fn word(state: &containerd_shim::api::StateResponse) -> String {
    match state.status.enum_value_or_default() {
        Status::CREATED => "created".to_owned(),
        Status::RUNNING => "running".to_owned(),
        Status::PAUSED | Status::PAUSING => "paused".to_owned(),
        Status::STOPPED => format!("stopped ({})", state.exit_status),
        Status::UNKNOWN => "unknown".to_owned(),
    }
}

pub(super) async fn stats(root: &Root, args: &StatsArgs) -> Result<()> {
    let entries = match args.ids.as_slice() {
        [] => root.entries()?,
        ids => ids.iter().map(|id| root.entry(id)).collect::<Result<_, _>>()?,
    };
    let mut usages = Vec::new();
    for entry in entries {
        let task = match Task::of(entry) {
            Ok(task) => task,
            // Of all, those that run.
            Err(_) if args.ids.is_empty() => continue,
            Err(error) => return Err(error),
        };
        let request = StatsRequest {
            id: task.id.clone(),
            ..StatsRequest::default()
        };
        let answer = told(task.client.stats(Context::default(), &request).await)?;
        let figures = Metrics::parse_from_bytes(&answer.stats.value).context("the figures")?;
        usages.push(Usage {
            id: task.id,
            cpu_ns: figures.cpu.usage.total,
            memory_bytes: figures.memory.usage.usage,
            memory_limit_bytes: figures.memory.usage.limit,
            pids: figures.pids.current,
        });
    }
    let lines = usages.iter().map(|usage| {
        [
            usage.id.clone(),
            format!("{:.2} s", usage.cpu_ns as f64 / 1e9),
            format!("{:.1} MiB", usage.memory_bytes as f64 / f64::from(1 << 20)),
            usage.pids.to_string(),
        ]
    });
    show(args.format, &usages, ["ID", "CPU TIME", "MEMORY", "PIDS"], lines)
}

fn show<T: Serialize, const N: usize>(
    format: Format,
    rows: &[T],
    heading: [&str; N],
    lines: impl Iterator<Item = [String; N]>,
) -> Result<()> {
    match format {
        Format::Json => print(&(serde_json::to_string_pretty(rows)? + "\n")),
        Format::Table => {
            let mut all = vec![heading.map(str::to_owned)];
            all.extend(lines);
            print(&columns::render(&all))
        }
    }
}

fn print(text: &str) -> Result<()> {
    // Whoever reads no further has seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
