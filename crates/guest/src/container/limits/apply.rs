//! Writing limits: all of them, or none.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::{
    super::CGROUPS,
    ids::Ids,
    resources::{Absent, Write},
};
use crate::error::{AgentError, During, Result};

/// What a conversion must know of the VM and of the cgroup as it is.
#[derive(Debug, Default)]
pub(in super::super) struct Facts {
    /// The VM's CPUs; empty where its kernel cannot confine to some of them.
    pub(super) cpus: Ids,
    /// The VM's memory nodes; empty likewise.
    pub(super) mems: Ids,
    /// The CPU time of one period, as the cgroup's `cpu.max` has it.
    pub(super) cpu_quota: String,
    /// Bytes in use.
    pub(super) memory_in_use: u64,
}

impl Facts {
    /// Looks. What cannot be read is as good as not there.
    pub(in super::super) fn of(cgroup: &Path) -> Self {
        let text = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let ids = |file: &str| Ids::parse(&text(Path::new(CGROUPS).join(file))).unwrap_or_default();
        let cpu = text(cgroup.join("cpu.max"));
        Self {
            cpus: ids("cpuset.cpus.effective"),
            mems: ids("cpuset.mems.effective"),
            cpu_quota: cpu.split_whitespace().next().unwrap_or("max").to_owned(),
            memory_in_use: text(cgroup.join("memory.current")).trim().parse().unwrap_or(0),
        }
    }
}

/// Writes everything. If the kernel refuses one, those before it get their old values back.
pub(super) fn apply(cgroup: &Path, writes: &[Write]) -> Result<()> {
    let mut undo: Vec<(PathBuf, String)> = Vec::new();
    for write in writes {
        let path = cgroup.join(&write.file);
        let outcome = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match write.if_absent {
                Absent::HoldsAnyway => continue,
                Absent::Refused => Err(AgentError::NotSupported(format!(
                    "{}: the VM's kernel has no {}",
                    write.member, write.file
                ))),
            },
            Err(error) => Err(error).during(|| format!("reading {}", path.display())),
            Ok(before) => match put(&path, &write.value) {
                Ok(()) => {
                    undo.push((path, before));
                    Ok(())
                }
                Err(error) => Err(refusal(write, &path, error)),
            },
        };
        if let Err(error) = outcome {
            for (path, before) in undo.into_iter().rev() {
                if let Err(error) = put(&path, before.trim_end()) {
                    tracing::error!(file = %path.display(), %error, "an old limit could not be put back");
                }
            }
            return Err(error);
        }
    }
    Ok(())
}

/// A value the kernel does not take is the caller's mistake; anything else is the VM's.
fn refusal(write: &Write, path: &Path, error: io::Error) -> AgentError {
    let action = format!(
        "{}: writing {:?} to {}",
        write.member,
        write.value,
        path.display()
    );
    match error.kind() {
        io::ErrorKind::InvalidInput => AgentError::Invalid(format!("{action}: {error}")),
        _ if error.raw_os_error() == Some(libc::ERANGE) => AgentError::Invalid(format!("{action}: {error}")),
        _ => AgentError::Io {
            action,
            source: error,
        },
    }
}

/// One write of a file that is there: the kernel takes no limit in two pieces.
fn put(path: &Path, value: &str) -> io::Result<()> {
    // An empty value clears a list, and an empty write would be none.
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)?
        .write_all(format!("{value}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &str, value: &str, if_absent: Absent) -> Write {
        Write {
            member: "linux.resources.x".into(),
            file: file.into(),
            value: value.into(),
            if_absent,
        }
    }

    #[test]
    fn a_refused_write_puts_back_what_was_before_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        fs::write(dir.path().join("cpuset.cpus"), "\n").unwrap();
        let writes = [
            write("memory.max", "4096", Absent::Refused),
            write("cpuset.cpus", "0", Absent::Refused),
            write("memory.swap.max", "0", Absent::HoldsAnyway),
            write("pids.max", "3", Absent::Refused),
        ];
        let error = apply(dir.path(), &writes).unwrap_err();
        assert_eq!(error.code(), 0x8000_4001);
        assert_eq!(
            error.to_string(),
            "linux.resources.x: the VM's kernel has no pids.max"
        );
        let now = |file| fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!(
            (now("memory.max"), now("cpuset.cpus")),
            ("max\n".into(), "\n".into())
        );
        apply(dir.path(), &writes[..3]).unwrap();
        assert_eq!(now("memory.max"), "4096\n");
        assert!(!dir.path().join("memory.swap.max").exists());
    }

    #[test]
    fn a_cgroup_that_is_not_there_has_no_facts_and_takes_no_limit() {
        let dir = tempfile::tempdir().unwrap();
        let facts = Facts::of(&dir.path().join("absent"));
        assert_eq!((facts.cpu_quota.as_str(), facts.memory_in_use), ("max", 0));
        apply(
            &dir.path().join("absent"),
            &[write("memory.max", "1", Absent::Refused)],
        )
        .unwrap_err();
    }
}
