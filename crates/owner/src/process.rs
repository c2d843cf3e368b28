//! Processes that are told apart from later ones with the same number.

use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// A process: its number, and when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// Clock ticks from the host's boot to its start (`proc_pid_stat(5)`, field 22).
    pub start_ticks: u64,
}

impl ProcessId {
    /// The process with this number now.
    ///
    /// # Errors
    /// The system's, where there is none.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_ticks = start_of(&stat).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, start_ticks })
    }

    /// This process.
    ///
    /// # Errors
    /// The system's, where `/proc` cannot be read.
    pub fn own() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// Whether it runs, and is no zombie.
    #[must_use]
    pub fn is_alive(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        start_of(&stat) == Some(self.start_ticks) && !matches!(state_of(&stat), Some("Z" | "X"))
    }

    /// Kills it. One that has ended counts as killed.
    ///
    /// # Errors
    /// The system's.
    pub fn kill(self) -> io::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        match kill_process(pid, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The fields after the command's name, which may hold anything, parentheses included.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after.split_ascii_whitespace()
}

fn state_of(stat: &str) -> Option<&str> {
    fields(stat).next()
}

fn start_of(stat: &str) -> Option<u64> {
    fields(stat).nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let rest: Vec<String> = (3..=22).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) b) (c) {}", rest.join(" "));
        assert_eq!((start_of(&stat), state_of(&stat)), (Some(22), Some("3")));
        assert_eq!(start_of(""), None);
    }

    #[test]
    fn a_process_is_alive_until_it_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        assert!(process.is_alive() && ProcessId::own().unwrap().is_alive());
        let earlier = ProcessId {
            start_ticks: process.start_ticks - 1,
            ..process
        };
        assert!(!earlier.is_alive(), "another process with that number");
        earlier.kill().unwrap();
        assert!(process.is_alive(), "the stranger was not killed");
        process.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.is_alive());
        process.kill().unwrap();
    }
}
