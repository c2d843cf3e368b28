//! What a dead owner left, found from its record and its journal, and freed.
//!
//! The devices of a VM are gone with the VM, and the VM's process is tied to its owner's; that it really is gone is
//! looked up, not believed. What outlives both are files that were to be deleted, directories, and interfaces that lead to a
//! device that is gone.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use cofferdam_journal::{Held, JournalError, ManagedFile, Replay};
use cofferdam_ledger::{Request, request::HostRequest};
use cofferdam_network::{Redirection, redirection, restore};
use serde::Serialize;

use crate::{Entry, Isolation, OwnerError, ProcessId, Record, Redirected, root::RECORD};

/// One thing, and what is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remain {
    /// What it is, in words.
    pub what: String,
    /// How it is now.
    pub state: State,
    /// What frees it; `None` where nothing has to.
    #[serde(skip)]
    pub remedy: Option<Remedy>,
}

/// How something is that a dead owner had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It went with its VM.
    Gone,
    /// It is there still, and nobody owns it.
    LeftBehind,
    /// There is something of that name, but it is somebody else's.
    NotOurs,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "gone with its VM",
            Self::LeftBehind => "left behind",
            Self::NotOurs => "replaced by another; kept",
        })
    }
}

/// What frees something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// The process is killed.
    Kill(ProcessId),
    /// The file is deleted.
    Delete(ManagedFile),
    /// The directory is removed with all that is in it.
    Remove(PathBuf),
    /// The interface gets its place back.
    Restore(Redirected),
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill(_) => "kill",
            Self::Delete(_) => "delete",
            Self::Remove(_) => "remove",
            Self::Restore(_) => "restore",
        })
    }
}

/// Everything found of one dead owner.
#[derive(Debug)]
pub struct Remains {
    /// What it said of itself, if it came so far.
    pub record: Option<Record>,
    /// What its journal says.
    pub replay: Result<Replay, JournalError>,
    /// What there is of it, in the order in which it is freed.
    pub remains: Vec<Remain>,
}

/// Looks for what a dead owner left. Nothing is touched.
#[must_use]
pub fn find(entry: &Entry) -> Remains {
    let record = entry.record().ok();
    let replay = entry.replay();
    let mut remains = Vec::new();
    if let Some(process) = record.as_ref().and_then(|record| record.hypervisor) {
        remains.push(Remain {
            what: format!("hypervisor, process {}", process.pid),
            state: if process.is_alive() {
                State::LeftBehind
            } else {
                State::Gone
            },
            remedy: process.is_alive().then_some(Remedy::Kill(process)),
        });
    }
    if let Ok(replay) = &replay {
        if record
            .as_ref()
            .is_none_or(|record| record.isolation == Isolation::Vm)
        {
            remains.extend(replay.held.iter().map(|(held, (request, _))| Remain {
                what: in_words(held, request),
                state: State::Gone,
                remedy: None,
            }));
        }
        remains.extend(replay.managed.iter().filter_map(managed));
    }
    let directories = record.iter().flat_map(|record| &record.directories);
    remains.extend(directories.filter(|dir| dir.exists()).map(|dir| Remain {
        what: format!("directory {}", dir.display()),
        state: State::LeftBehind,
        remedy: Some(Remedy::Remove(dir.clone())),
    }));
    let redirected = record.iter().flat_map(|record| &record.redirected);
    remains.extend(redirected.filter_map(left_redirected));
    Remains {
        record,
        replay,
        remains,
    }
}

fn in_words(held: &Held, request: &Request) -> String {
    match (held, request) {
        (Held::Scsi(address), Request::Host(HostRequest::AttachScsi { path, .. })) => {
            format!("{address}, {}", path.display())
        }
        (Held::Vpmem(index), Request::Host(HostRequest::AttachVpmem { path, .. })) => {
            format!("VPMEM {index}, {}", path.display())
        }
        (Held::Share(share), Request::Host(HostRequest::AddShare { path, .. })) => {
            format!("share {share}, {}", path.display())
        }
        (held, _) => match held {
            Held::Scsi(address) => address.to_string(),
            Held::Vpmem(index) => format!("VPMEM {index}"),
            Held::Share(share) => format!("share {share}"),
            Held::Mount(path) => format!("guest mount {path}"),
            Held::ContainerMount {
                container,
                destination,
            } => format!("mount {destination} of container {container}"),
        },
    }
}

/// `None` where the file is not there any more.
fn managed(file: &ManagedFile) -> Option<Remain> {
    let found = fs::symlink_metadata(&file.path).ok()?;
    let ours = (found.dev(), found.ino()) == (file.key.device, file.key.inode);
    Some(Remain {
        what: format!("auto-managed disk {}", file.path.display()),
        state: if ours { State::LeftBehind } else { State::NotOurs },
        remedy: ours.then(|| Remedy::Delete(file.clone())),
    })
}

/// `None` where it is not redirected any more.
fn left_redirected(redirected: &Redirected) -> Option<Remain> {
    let Redirected {
        namespace, interface, ..
    } = redirected;
    let state = match redirection(namespace, interface) {
        Ok(Redirection::Absent) => return None,
        Ok(Redirection::InUse(device)) if is_anothers(redirected, device) => State::NotOurs,
        // What cannot be looked at is tried, and that tells why.
        Ok(Redirection::Abandoned | Redirection::InUse(_)) | Err(_) => State::LeftBehind,
    };
    Some(Remain {
        what: format!("redirected interface {interface} in {}", namespace.display()),
        state,
        remedy: (state == State::LeftBehind).then(|| Remedy::Restore(redirected.clone())),
    })
}

/// Performs one remedy. What is gone meanwhile counts as freed.
///
/// # Errors
/// The system's.
pub fn free(remedy: &Remedy) -> Result<(), OwnerError> {
    let absent_is_fine = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    match remedy {
        Remedy::Kill(process) => process
            .kill()
            .and_then(|()| await_end(*process))
            .map_err(OwnerError::io("killing", format!("process {}", process.pid))),
        // It is looked at again: somebody may have put another file there meanwhile.
        Remedy::Delete(file) => match managed(file) {
            Some(Remain {
                remedy: Some(Remedy::Delete(_)),
                ..
            }) => absent_is_fine(fs::remove_file(&file.path)).map_err(OwnerError::io("deleting", &file.path)),
            _ => Ok(()),
        },
        Remedy::Remove(dir) => removable(dir)
            .and_then(|()| absent_is_fine(fs::remove_dir_all(dir)))
            .map_err(OwnerError::io("removing", dir)),
        Remedy::Restore(redirected) => give_back(redirected),
    }
}

/// Whether another VM has an interface's place now.
fn is_anothers(redirected: &Redirected, device: i32) -> bool {
    redirected.device.is_some_and(|ours| ours != device)
}

fn give_back(redirected: &Redirected) -> Result<(), OwnerError> {
    let Redirected {
        namespace, interface, ..
    } = redirected;
    let begun = Instant::now();
    loop {
        match redirection(namespace, interface)? {
            Redirection::Absent => return Ok(()),
            Redirection::Abandoned => return Ok(restore(namespace, interface)?),
            // As with a file: it was looked at before.
            Redirection::InUse(device) if is_anothers(redirected, device) => return Ok(()),
            // A process of several threads has its files until the last of them has ended, and counts as ended before.
            Redirection::InUse(_) if begun.elapsed() < KILL_LIMIT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Redirection::InUse(_) => {
                let failed = OwnerError::io("waiting for the device behind an interface of", namespace);
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
        }
    }
}

/// For the kernel to end a process that was killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);

fn await_end(process: ProcessId) -> io::Result<()> {
    let begun = Instant::now();
    while process.is_alive() {
        if begun.elapsed() > KILL_LIMIT {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A record is not to have us remove a directory that no owner makes.
fn removable(dir: &Path) -> io::Result<()> {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let beside_record = || dir.parent().is_some_and(|owner| owner.join(RECORD).is_file());
    let made = name.starts_with("cofferdam-") || name.starts_with("vm") && beside_record();
    if made && dir.is_absolute() {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not named as a VM's directory is",
        ))
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_ledger::{
        address::ScsiAddress,
        device::FileKey,
        request::{DiskKind, HostRequest},
    };

    use super::*;
    use crate::Root;

    fn key(path: &Path) -> FileKey {
        let found = fs::metadata(path).unwrap();
        FileKey {
            device: found.dev(),
            inode: found.ino(),
        }
    }

    #[test]
    fn everything_a_dead_owner_left_is_found_and_freed_and_strangers_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (managed, replaced) = (dir.path().join("managed"), dir.path().join("replaced"));
        let sockets = dir.path().join("cofferdam-sockets");
        fs::create_dir(&sockets).unwrap();
        for file in [&managed, &replaced] {
            fs::write(file, "x").unwrap();
        }
        let mut hypervisor = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let root = Root::new(dir.path().join("run"));
        let record = Record {
            id: "web".into(),
            owner: ProcessId::own().unwrap(),
            isolation: Isolation::Vm,
            bundle: "/bundle".into(),
            hypervisor: Some(ProcessId::of(hypervisor.id()).unwrap()),
            directories: vec![sockets.clone()],
            redirected: Vec::new(),
        };
        let claim = root.claim(&record).unwrap();
        for (lun, path) in [(0, &managed), (1, &replaced)] {
            let file = ManagedFile {
                path: path.clone(),
                key: key(path),
            };
            claim.journal().manages(file).unwrap();
            let attach = HostRequest::AttachScsi {
                address: ScsiAddress { controller: 0, lun },
                path: path.clone(),
                kind: DiskKind::Virtual,
                read_only: false,
            };
            claim.journal().begin(&Request::Host(attach)).unwrap();
        }
        drop(claim);
        fs::write(dir.path().join("new"), "another").unwrap();
        fs::rename(dir.path().join("new"), &replaced).unwrap();

        let entry = root.entry("web").unwrap();
        let found = find(&entry);
        let states: Vec<_> = found.remains.iter().map(|remain| remain.state).collect();
        use State::{Gone, LeftBehind, NotOurs};
        assert_eq!(states, [LeftBehind, Gone, Gone, LeftBehind, NotOurs, LeftBehind]);
        // The killed child is waited for by nobody but this test.
        let reaper = std::thread::spawn(move || hypervisor.wait().unwrap());
        for remedy in found.remains.iter().filter_map(|remain| remain.remedy.as_ref()) {
            free(remedy).unwrap();
            free(remedy).unwrap();
        }
        reaper.join().unwrap();
        assert!(!managed.exists() && !sockets.exists() && replaced.exists());
        let left = find(&entry).remains;
        assert!(left.iter().all(|remain| remain.remedy.is_none()), "{left:?}");
        entry.adopt().unwrap().unwrap().close().unwrap();
    }

    #[test]
    fn a_record_cannot_have_another_directory_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["home", "vm0abc"] {
            let strange = dir.path().join(name);
            fs::create_dir(&strange).unwrap();
            free(&Remedy::Remove(strange.clone())).unwrap_err();
            assert!(strange.exists());
        }
        // Beside a record it is a VM's.
        fs::write(dir.path().join(RECORD), "{}").unwrap();
        free(&Remedy::Remove(dir.path().join("home"))).unwrap_err();
        free(&Remedy::Remove(dir.path().join("vm0abc"))).unwrap();
        assert!(!dir.path().join("vm0abc").exists());
    }
}
