//! `cofferdam events`: what happens to the containers of a root, as it happens.

mod owners;
mod wishes;

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use cofferdam_observe::Told;
use cofferdam_owner::Root;
use time::OffsetDateTime;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::unbounded_channel,
    time::{MissedTickBehavior, interval},
};

use self::{
    owners::Owners,
    wishes::{Wishes, at},
};
use crate::{
    args::{EventsArgs, Format},
    exit::Exit,
};

/// Between two looks for owners that have come or gone.
const PAUSE: Duration = Duration::from_millis(100);
/// For the owners that are there to tell what was before.
const PAST_LIMIT: Duration = Duration::from_secs(2);

/// Runs the command until it is interrupted, or nobody reads on.
pub(crate) fn execute(root: &Root, args: &EventsArgs) -> Exit {
    let wishes = match Wishes::of(args, OffsetDateTime::now_utc()) {
        Ok(wishes) => wishes,
        Err(error) => return Exit::usage(format!("{error:#}")),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let followed = runtime
        .context("starting")
        .and_then(|runtime| runtime.block_on(interruptible(root, &wishes, args.format)));
    Exit::of(followed)
}

async fn interruptible(root: &Root, wishes: &Wishes, format: Format) -> Result<()> {
    let mut interrupted = signal(SignalKind::interrupt()).context("watching for signals")?;
    let mut terminated = signal(SignalKind::terminate()).context("watching for signals")?;
    tokio::select! {
        () = follow(root, wishes, format) => {}
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}

/// Returns when nobody reads what is shown.
async fn follow(root: &Root, wishes: &Wishes, format: Format) {
    let (said, mut news) = unbounded_channel();
    let mut owners = Owners::new(root.clone(), said);
    let mut looks = interval(PAUSE);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What several owners told before is shown in one order, once all of them have told it.
    let mut past = Vec::new();
    let mut until = Some(Instant::now() + PAST_LIMIT);
    loop {
        let told = tokio::select! {
            biased;
            Some((owner, news)) = news.recv() => {
                let told = owners.note(&owner, news);
                told.into_iter().map(|told| (owner.clone(), told)).collect()
            }
            _ = looks.tick() => owners.look(),
        };
        past.extend(told);
        if until.is_some_and(|until| owners.awaits() && Instant::now() < until) {
            continue;
        }
        if until.take().is_some() {
            past.sort_by_key(|(_, told)| at(told));
        }
        for (owner, told) in past.drain(..) {
            if wishes.want(&owner, &told) && !show(&told, format) {
                return;
            }
        }
    }
}

/// Whether somebody reads it.
fn show(told: &Told, format: Format) -> bool {
    let text = match format {
        Format::Json => serde_json::to_string(told).unwrap_or_default(),
        Format::Table => line(told),
    };
    let mut output = std::io::stdout().lock();
    writeln!(output, "{text}").and_then(|()| output.flush()).is_ok()
}

/// For people.
fn line(told: &Told) -> String {
    let mut text = format!("{}  {:<12}  {}", told.time, told.kind, told.id);
    if let Some(exec) = &told.exec {
        text.push('/');
        text.push_str(exec);
    }
    let attributes = told.attributes.iter().map(|(name, value)| match value.as_str() {
        Some(value) => format!("{name}={value}"),
        None => format!("{name}={value}"),
    });
    let attributes: Vec<_> = attributes.collect();
    if !attributes.is_empty() {
        text.push_str(&format!("  ({})", attributes.join(", ")));
    }
    // One event, one line.
    text.chars()
        .flat_map(|character| match character.is_control() {
            true => character.escape_default().collect::<Vec<_>>(),
            false => vec![character],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_its_bundle_is_called() {
        let told: Told = serde_json::from_value(serde_json::json!({
            "time": "2026-01-31T12:00:00Z", "type": "exit", "id": "web", "exec": "one",
            "attributes": { "exitStatus": 7, "bundle": "/a\nb" },
        }))
        .unwrap();
        assert_eq!(
            line(&told),
            "2026-01-31T12:00:00Z  exit          web/one  (exitStatus=7, bundle=/a\\nb)"
        );
    }
}
