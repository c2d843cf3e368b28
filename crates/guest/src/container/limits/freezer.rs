//! The freezer of cgroup v2: processes stand still, and go on.
//!
//! Freezing is asked for and happens later: each thread stops when it leaves the kernel, so one that waits there for
//! a disk or a share is waited for. A frozen process can still be killed.

use std::{
    fs,
    io::{self, Read as _, Seek as _},
    os::fd::AsFd as _,
    path::Path,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{AgentError, During, Result};

/// How long processes may take to stop.
const LIMIT: Duration = Duration::from_secs(10);

/// Stops every process of the cgroup and below it. If one does not stop in time, all go on.
///
/// # Errors
/// The kernel's; and that of a process that does not stop, or of a container that is killed meanwhile.
pub(in super::super) fn freeze(cgroup: &Path) -> Result<()> {
    set(cgroup, true)?;
    let stopped = wait_until_frozen(cgroup, LIMIT);
    if !matches!(stopped, Ok(true)) {
        set(cgroup, false)?;
    }
    match stopped.during(|| format!("waiting for {} to stand still", cgroup.display()))? {
        true => Ok(()),
        false => Err(AgentError::Busy {
            what: format!("cgroup {}", cgroup.display()),
            holder: format!(
                "not all of its processes stopped within {} s, and all go on",
                LIMIT.as_secs()
            ),
        }),
    }
}

/// Lets them go on.
pub(in super::super) fn thaw(cgroup: &Path) -> Result<()> {
    set(cgroup, false)
}

/// Whether the cgroup is to stand still, whatever its processes have got to.
pub(in super::super) fn is_frozen(cgroup: &Path) -> bool {
    fs::read_to_string(cgroup.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
}

fn set(cgroup: &Path, frozen: bool) -> Result<()> {
    let file = cgroup.join("cgroup.freeze");
    // Not `fs::write`: that would ask to make the file where the cgroup is gone.
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).open(&file)?;
        io::Write::write_all(&mut file, if frozen { b"1\n" } else { b"0\n" })
    };
    write().during(|| format!("writing {}", file.display()))
}

fn wait_until_frozen(cgroup: &Path, limit: Duration) -> io::Result<bool> {
    let mut events = fs::File::open(cgroup.join("cgroup.events"))?;
    let end = Instant::now() + limit;
    loop {
        let mut text = String::new();
        // Reading also tells the kernel that what has changed so far is known.
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "frozen 1") {
            return Ok(true);
        }
        // Killed meanwhile, and let go on so that it can end.
        if !is_frozen(cgroup) {
            return Ok(false);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let changed = PollFlags::PRI;
        match poll(
            &mut [PollFd::from_borrowed_fd(events.as_fd(), changed)],
            Some(&timeout),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_that_stands_still_is_known_by_its_events() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("cgroup.freeze", "0\n"),
            ("cgroup.events", "populated 1\nfrozen 1\n"),
        ] {
            fs::write(dir.path().join(file), text).unwrap();
        }
        assert!(!is_frozen(dir.path()));
        freeze(dir.path()).unwrap();
        assert!(is_frozen(dir.path()));
        thaw(dir.path()).unwrap();
        assert!(!is_frozen(dir.path()));
    }

    #[test]
    fn one_that_is_gone_is_an_error_and_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let error = freeze(dir.path()).unwrap_err().to_string();
        assert!(error.contains("cgroup.freeze"), "{error}");
        assert!(!is_frozen(dir.path()));
        assert!(!dir.path().join("cgroup.freeze").exists());
    }
}
