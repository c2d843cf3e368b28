//! The processes of this host, from /proc.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub parent: u32,
    /// The program's name, cut to 15 bytes by the kernel.
    pub name: String,
}

/// All live processes; one that has ended and waits for its parent is none.
pub(crate) fn all() -> Result<Vec<Process>> {
    let entries = fs::read_dir("/proc").context("could not list the processes")?;
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    // A process may end between the listing and the reading.
    Ok(pids
        .filter_map(|pid| parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect())
}

/// Reads proc_pid_stat(5): `pid (name) state parent ...`. The name may hold anything, so it ends at the last `)`.
fn parse(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z").then_some(Process {
        pid: pid.parse().ok()?,
        parent,
        name: name.to_owned(),
    })
}

/// The processes below one, each after its parent.
pub(crate) fn below(pid: u32) -> Result<Vec<Process>> {
    let all = all()?;
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        let children = all.iter().filter(|process| process.parent == parent).cloned();
        for child in children {
            parents.push(child.pid);
            found.push(child);
        }
    }
    Ok(found)
}

/// Kills a process; one that has ended already is fine.
pub(crate) fn kill(process: &Process) {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_is_kept_whole() {
        let process = parse("12 (a) b) S 7 12 12 0 -1").unwrap();
        assert_eq!(
            (process.pid, process.parent, process.name.as_str()),
            (12, 7, "a) b")
        );
        assert_eq!(parse("12 (gone) Z 7 12 12 0 -1"), None);
        assert_eq!(parse("nonsense"), None);
    }
}
