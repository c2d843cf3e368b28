//! `cofferdam ps`.

use anyhow::Result;
use cofferdam_explain::columns;
use cofferdam_owner::{Isolation, Root};
use containerd_shim::api::Status;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::client::Task;
use crate::{
    args::{Format, PsArgs},
    moment::age,
    output::print,
};

/// A container in the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    status: String,
    isolation: Option<Isolation>,
    pid: Option<u32>,
    bundle: Option<String>,
    image: Option<String>,
    created: Option<String>,
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
        let about = entry.about().unwrap_or_default();
        rows.push(Row {
            id: entry.id(),
            status,
            isolation: record.as_ref().map(|record| record.isolation),
            pid: record.as_ref().map(|record| record.owner.pid),
            bundle: record.map(|record| record.bundle.display().to_string()),
            image: about.image,
            created: about.created_at,
        });
    }
    if args.quiet {
        let names: String = rows.iter().map(|row| format!("{}\n", row.id)).collect();
        print(&names);
        return Ok(());
    }
    let lines = rows.iter().map(|row| {
        [
            row.id.clone(),
            row.image
                .as_ref()
                .or(row.bundle.as_ref())
                .map_or("-", String::as_str)
                .to_owned(),
            row.status.clone(),
            row.created.as_deref().and_then(since).map_or("-".to_owned(), age),
            row.pid.map_or("-".to_owned(), |pid| pid.to_string()),
        ]
    });
    let heading = ["ID", "IMAGE OR BUNDLE", "STATUS", "CREATED", "OWNER"];
    show(args.format, &rows, heading, lines)
}

/// Seconds since 1970.
fn since(text: &str) -> Option<u64> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    moment.unix_timestamp().try_into().ok()
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
    Ok(())
}
