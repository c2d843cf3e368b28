//! Processes that an owner left running, found by how they were started. They are held by file descriptors, so that
//! a number that has been given to another process meanwhile is never signalled.

use std::{
    ffi::OsString,
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::error::{During, HostError, Result};

/// How long a process may take to end once it was killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: u32,
    handle: OwnedFd,
}

/// The running processes of program `name` whose arguments `ours` accepts.
pub(crate) fn of_program(name: &str, ours: impl Fn(&[OsString]) -> bool) -> Result<Vec<Process>> {
    let mut found = Vec::new();
    let fits = |id| arguments(id).is_some_and(|words| is_program(&words, name) && ours(&words[1..]));
    for entry in fs::read_dir("/proc")
        .during(|| "reading /proc".to_owned())?
        .flatten()
    {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if !fits(id) {
            continue;
        }
        let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) else {
            continue;
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Looked at again, now that the number cannot become another's unseen.
            Ok(handle) if fits(id) => found.push(Process { id, handle }),
            Ok(_) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error).during(|| format!("holding process {id}")),
        }
    }
    Ok(found)
}

/// A process's arguments; nothing where it is gone, or ends.
fn arguments(id: u32) -> Option<Vec<OsString>> {
    let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
    let line = line.strip_suffix(b"\0")?;
    Some(
        line.split(|byte| *byte == 0)
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect(),
    )
}

fn is_program(words: &[OsString], name: &str) -> bool {
    words
        .first()
        .and_then(|program| Path::new(program).file_name())
        .is_some_and(|file| file == name)
}

impl Process {
    /// Asks it to end, and kills it if it has not within `patience`. One that is gone counts as done.
    pub(crate) fn end(&self, patience: Duration) -> Result<()> {
        let action = || format!("ending process {}", self.id);
        for (signal, limit) in [(Signal::TERM, patience), (Signal::KILL, KILL_LIMIT)] {
            if limit.is_zero() {
                continue;
            }
            match pidfd_send_signal(&self.handle, signal) {
                Ok(()) => {}
                Err(Errno::SRCH) => return Ok(()),
                Err(error) => return Err(error).during(action),
            }
            if self.gone_within(limit).during(action)? {
                return Ok(());
            }
        }
        Err(HostError::TimedOut {
            action: action(),
            limit_ms: u64::try_from(KILL_LIMIT.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn gone_within(&self, limit: Duration) -> io::Result<bool> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).unwrap_or_default();
            let mut handles = [PollFd::new(&self.handle, PollFlags::IN)];
            match poll(&mut handles, Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_found_by_its_arguments_and_ended() {
        let mark = format!("{}.5", 7_000_000 + std::process::id());
        let ours = |words: &[OsString]| words == [OsString::from(&mark)];
        let mut child = Command::new("sleep").arg(&mark).spawn().unwrap();
        // Between fork and exec it still has this process's arguments.
        let found = loop {
            let found = of_program("sleep", ours).unwrap();
            if !found.is_empty() {
                break found;
            }
        };
        assert_eq!(
            found.iter().map(|process| process.id).collect::<Vec<_>>(),
            [child.id()]
        );
        found[0].end(Duration::from_secs(5)).unwrap();
        assert!(!child.wait().unwrap().success());
        found[0].end(Duration::from_secs(5)).unwrap();
        assert!(of_program("sleep", ours).unwrap().is_empty());
    }
}
