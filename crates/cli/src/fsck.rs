//! `cofferdam fsck`: what is held that nobody owns, and freeing it.
//!
//! A living owner is asked to compare its ledger, its host devices and its guest's mounts. For a dead one its journal
//! says what it had; what of that is still there is looked up, and freed on request.

use std::time::{Duration, Instant};

use anyhow::Result;
use cofferdam_explain::columns;
use cofferdam_host::{Leftover, Owner};
use cofferdam_journal::Replay;
use cofferdam_observe::{CheckReport, FoundLine};
use cofferdam_owner::{
    Entry, Isolation, Root,
    audit::Problem,
    control::{self, ControlError, Question},
    remains::{self, State},
};
use serde::Serialize;

use crate::{
    args::{Format, FsckArgs},
    exit::Exit,
    output::print,
};

/// What was found of one owner.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OwnerReport {
    id: String,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// Whether what it holds was looked at: not while its owner starts or ends, nor where there is no VM to ask.
    looked_at: bool,
    found: Vec<FoundLine>,
    /// Why it could not be looked at, or not be freed altogether.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Alive,
    Dead,
}

impl OwnerReport {
    /// Whether something is wrong that is not mended.
    fn is_wrong(&self) -> bool {
        self.error.is_some() || self.found.iter().any(is_wrong)
    }
}

fn is_wrong(line: &FoundLine) -> bool {
    !line.freed && (line.remedy.is_some() || line.state == Problem::NotThere.to_string())
}

/// Runs the command.
pub(crate) fn execute(root: &Root, args: &FsckArgs) -> Exit {
    let reports = match look(root, args) {
        Ok(reports) => reports,
        Err(error) => return Exit::refused(format!("{error:#}")),
    };
    let text = match args.format {
        Format::Table => table(root, &reports, args.repair),
        // Strings and flags only: nothing of it can fail to be written.
        Format::Json => serde_json::to_string_pretty(&reports).unwrap_or_default() + "\n",
    };
    print(&text);
    if reports.iter().any(OwnerReport::is_wrong) {
        Exit::found()
    } else {
        Exit::success()
    }
}

fn look(root: &Root, args: &FsckArgs) -> Result<Vec<OwnerReport>> {
    let entries = if args.ids.is_empty() {
        let mut entries = root.entries()?;
        // Nothing is held of what has ended and is kept.
        entries.retain(|entry| entry.is_alive() || entry.ended().is_none());
        entries
    } else {
        let entries = args.ids.iter().map(|id| root.entry(id));
        entries.collect::<Result<_, _>>()?
    };
    Ok(entries.iter().map(|entry| of(entry, args.repair)).collect())
}

fn of(entry: &Entry, repair: bool) -> OwnerReport {
    let mut report = OwnerReport {
        id: entry.id(),
        status: status(entry),
        pid: entry.record().ok().map(|record| record.owner.pid),
        looked_at: true,
        found: Vec::new(),
        error: None,
    };
    let outcome = match report.status {
        Status::Alive => ask(entry, repair, &mut report),
        Status::Dead => clear(entry, repair, &mut report),
    };
    report.error = outcome.err().map(|error| format!("{error:#}"));
    report
}

/// For a killed owner's lock to be free: a child of its own that was just being started may hold it for a moment.
const LOCK_LIMIT: Duration = Duration::from_secs(1);

fn status(entry: &Entry) -> Status {
    let begun = Instant::now();
    loop {
        if !entry.is_alive() {
            return Status::Dead;
        }
        let killed = entry.record().is_ok_and(|record| !record.owner.is_alive());
        if !killed || begun.elapsed() > LOCK_LIMIT {
            return Status::Alive;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ask(entry: &Entry, repair: bool, report: &mut OwnerReport) -> Result<()> {
    match control::ask::<CheckReport>(entry.dir(), &Question::Check { repair }) {
        Ok(answer) => report.found = answer.found,
        // It has only just begun, or is about to end.
        Err(ControlError::Io(error))
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            report.looked_at = false;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn clear(entry: &Entry, repair: bool, report: &mut OwnerReport) -> Result<()> {
    let adopted = if repair { entry.adopt()? } else { None };
    let found = remains::find(entry);
    // A record that was never written is of an owner that had taken nothing yet.
    let isolation = found.record.as_ref().map(|record| record.isolation);
    if let (Some(Isolation::Process), Ok(replay)) = (isolation, &found.replay) {
        report
            .found
            .extend(on_the_host(entry, replay, adopted.is_some())?);
    }
    for remain in found.remains {
        let mut line = FoundLine {
            what: remain.what,
            state: remain.state.to_string(),
            remedy: remain.remedy.as_ref().map(ToString::to_string),
            failure: None,
            freed: false,
        };
        if let (Some(_), Some(remedy)) = (&adopted, &remain.remedy) {
            match remains::free(remedy) {
                Ok(()) => line.freed = true,
                Err(error) => line.failure = Some(error.to_string()),
            }
        }
        report.found.push(line);
    }
    // What follows an unreadable line is not known, so the journal stays until somebody has looked at it.
    found.replay.map_err(|error| {
        anyhow::anyhow!(
            "its journal {}: {error}; look at it, then remove {}",
            entry.dir().join("journal").display(),
            entry.dir().display()
        )
    })?;
    let mut own = FoundLine {
        what: format!("record {}", entry.dir().display()),
        state: State::LeftBehind.to_string(),
        remedy: Some("remove".to_owned()),
        failure: None,
        freed: false,
    };
    if let Some(adopted) = adopted
        && !report.found.iter().any(is_wrong)
    {
        match adopted.close() {
            Ok(()) => own.freed = true,
            Err(error) => own.failure = Some(error.to_string()),
        }
    }
    report.found.push(own);
    Ok(())
}

/// What is on this host itself, in process isolation; freed first, since it is mounted from what follows.
fn on_the_host(entry: &Entry, replay: &Replay, free: bool) -> Result<Vec<FoundLine>> {
    let owner = Owner::of(entry.dir())?;
    let line = |leftover: &Leftover, result: Option<cofferdam_host::Result<()>>| FoundLine {
        what: leftover.to_string(),
        state: State::LeftBehind.to_string(),
        remedy: Some("free".to_owned()),
        freed: matches!(result, Some(Ok(()))),
        failure: result.and_then(Result::err).map(|error| error.to_string()),
    };
    if free {
        let outcomes = cofferdam_host::clear(replay, &owner)?.into_iter();
        return Ok(outcomes
            .map(|outcome| line(&outcome.leftover, Some(outcome.result)))
            .collect());
    }
    let found = cofferdam_host::find(replay, &owner)?;
    Ok(found.iter().map(|leftover| line(leftover, None)).collect())
}

fn table(root: &Root, reports: &[OwnerReport], repair: bool) -> String {
    if reports.is_empty() {
        return format!("{}: nobody is recorded, nothing is held\n", root.path().display());
    }
    let mut lines = vec![["OWNER", "STATUS", "FOUND", "STATE", "ACTION"].map(str::to_owned)];
    for report in reports {
        let status = match (report.status, report.pid) {
            (Status::Alive, Some(pid)) => format!("process {pid}"),
            (Status::Alive, None) => "alive".to_owned(),
            (Status::Dead, Some(pid)) => format!("process {pid} is gone"),
            (Status::Dead, None) => "gone".to_owned(),
        };
        if report.found.is_empty() && report.error.is_none() {
            let state = if report.looked_at {
                "ledger, host devices and guest mounts agree"
            } else {
                "not looked at: it starts or ends just now, or has no VM"
            };
            lines.push([&report.id, &status, "-", state, "-"].map(str::to_owned));
        }
        for line in &report.found {
            let action = match (&line.remedy, line.freed, &line.failure) {
                (None, ..) => "-".to_owned(),
                (Some(remedy), true, _) => format!("{remedy}: done"),
                (Some(remedy), false, Some(failure)) => format!("{remedy}: failed: {failure}"),
                (Some(remedy), false, None) if repair => format!("{remedy}: not yet"),
                (Some(remedy), false, None) => remedy.clone(),
            };
            lines.push([&report.id, &status, &line.what, &line.state, &action].map(Clone::clone));
        }
        if let Some(error) = &report.error {
            lines.push([&report.id, &status, "-", error, "-"].map(|text| text.to_string()));
        }
    }
    let mut text = columns::render(&lines);
    let wrong = reports
        .iter()
        .flat_map(|report| &report.found)
        .filter(|line| is_wrong(line));
    let (wrong, freed) = (
        wrong.count(),
        reports
            .iter()
            .flat_map(|report| &report.found)
            .filter(|line| line.freed)
            .count(),
    );
    text.push_str(&match (wrong, freed) {
        (0, 0)
            if reports
                .iter()
                .all(|report| report.looked_at && report.error.is_none()) =>
        {
            "\nNothing is wrong.\n".to_owned()
        }
        (0, 0) => "\nNothing wrong was found, but not everything was looked at.\n".to_owned(),
        (0, freed) => format!("\n{freed} freed, nothing is left.\n"),
        (wrong, 0) if !repair => format!("\n{wrong} to free: cofferdam fsck --repair\n"),
        (wrong, freed) => format!("\n{freed} freed, {wrong} left.\n"),
    });
    text
}
