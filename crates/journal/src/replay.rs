//! Reading what a journal's owner may still hold. Pure but for reading the file.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use cofferdam_ledger::{
    Request,
    address::ScsiAddress,
    request::{GuestRequest, HostRequest, ShareId},
};

use crate::record::{ManagedFile, Record, StepNumber};

/// The longest line read, in bytes: a request names a handful of paths.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// The most that is read of a journal, in bytes.
const MAX_JOURNAL_BYTES: u64 = 1 << 30;

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system's reason.
    #[error("reading it: {0}")]
    Io(#[from] io::Error),
    /// A line that no journal has. What follows it is not known.
    #[error("line {line}: {source}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// Something that was taken, or may have been.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// A SCSI disk.
    Scsi(ScsiAddress),
    /// A persistent-memory device.
    Vpmem(u32),
    /// A share.
    Share(ShareId),
    /// A mount of the guest, or of this host in process isolation.
    Mount(String),
    /// A mount of a running container.
    ContainerMount {
        /// Which container.
        container: String,
        /// Where in it.
        destination: String,
    },
}

/// What a journal's owner held when it wrote its last line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// Everything taken and not given back, with the request that took it and whether that request is known to have
    /// succeeded.
    pub held: BTreeMap<Held, (Request, bool)>,
    /// Files that were to be deleted on release, whose disk was attached or about to be, and that are not known to be
    /// deleted.
    pub managed: Vec<ManagedFile>,
    /// Files that were to be deleted on release, and whose disk was never attached: they were not taken yet.
    pub promised: Vec<ManagedFile>,
    /// Steps that had begun and not ended.
    pub under_way: BTreeMap<StepNumber, Request>,
    /// Lines read.
    pub lines: usize,
}

impl Replay {
    /// Reads a journal.
    ///
    /// # Errors
    /// [`JournalError`]. A last line without its end is no error.
    pub fn read(path: &Path) -> Result<Self, JournalError> {
        let mut input = BufReader::new(File::open(path)?.take(MAX_JOURNAL_BYTES));
        let mut replay = Self::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            (&mut input).take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                if line.len() as u64 == MAX_LINE_BYTES {
                    let source = serde::de::Error::custom("a line of over 1 MiB");
                    return Err(JournalError::Line {
                        line: replay.lines + 1,
                        source,
                    });
                }
                return Ok(replay);
            }
            replay.lines += 1;
            let record = serde_json::from_slice(&line).map_err(|source| JournalError::Line {
                line: replay.lines,
                source,
            })?;
            replay.apply(record);
        }
    }

    /// Takes one more record.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Begin { step, request } => {
                if let Some(taken) = taken_by(&request) {
                    self.held.insert(taken, (request.clone(), false));
                }
                if let Request::Host(HostRequest::AttachScsi { path, .. }) = &request {
                    let (taken, promised) = std::mem::take(&mut self.promised)
                        .into_iter()
                        .partition(|file| file.path == *path);
                    self.promised = promised;
                    self.managed.extend::<Vec<_>>(taken);
                }
                self.under_way.insert(step, request);
            }
            Record::End { step, error } => {
                let Some(request) = self.under_way.remove(&step) else {
                    return;
                };
                if error.is_none() {
                    self.done(&request);
                }
                // A failed step may have taken effect: what it takes stays listed, what it gives back too.
            }
            Record::Manages(file) => self.promised.push(file),
            Record::Keeps(file) => {
                for files in [&mut self.managed, &mut self.promised] {
                    if let Some(at) = files.iter().position(|managed| *managed == file) {
                        files.remove(at);
                        break;
                    }
                }
            }
        }
    }

    fn done(&mut self, request: &Request) {
        if let Some(taken) = taken_by(request) {
            self.held.insert(taken, (request.clone(), true));
        }
        if let Some(given_back) = given_back_by(request) {
            self.held.remove(&given_back);
        }
        if let Request::Host(HostRequest::DeleteFile { path }) = request {
            self.managed.retain(|managed| managed.path != *path);
        }
    }
}

fn taken_by(request: &Request) -> Option<Held> {
    Some(match request {
        Request::Host(request) => match request {
            HostRequest::AttachScsi { address, .. } => Held::Scsi(*address),
            HostRequest::AttachVpmem { index, .. } => Held::Vpmem(*index),
            HostRequest::AddShare { share, .. } => Held::Share(*share),
            HostRequest::DetachScsi { .. }
            | HostRequest::DetachVpmem { .. }
            | HostRequest::RemoveShare { .. }
            | HostRequest::DeleteFile { .. } => return None,
        },
        Request::Guest(request) => Held::Mount(match request {
            GuestRequest::MountScsi { guest_path, .. }
            | GuestRequest::MountVpmem { guest_path, .. }
            | GuestRequest::MountShare { guest_path, .. } => guest_path.clone(),
            GuestRequest::CombineLayers { root, .. } => root.clone(),
            GuestRequest::AddContainerMount {
                container,
                destination,
                ..
            } => return Some(in_container(container, destination)),
            GuestRequest::UnmountScsi { .. }
            | GuestRequest::EjectScsi { .. }
            | GuestRequest::UnmountVpmem { .. }
            | GuestRequest::UnmountShare { .. }
            | GuestRequest::RemoveCombinedLayers { .. }
            | GuestRequest::RemoveContainerMount { .. } => return None,
        }),
    })
}

fn given_back_by(request: &Request) -> Option<Held> {
    Some(match request {
        Request::Host(request) => match request {
            HostRequest::DetachScsi { address } => Held::Scsi(*address),
            HostRequest::DetachVpmem { index } => Held::Vpmem(*index),
            HostRequest::RemoveShare { share } => Held::Share(*share),
            HostRequest::AttachScsi { .. }
            | HostRequest::AttachVpmem { .. }
            | HostRequest::AddShare { .. }
            | HostRequest::DeleteFile { .. } => return None,
        },
        Request::Guest(request) => Held::Mount(match request {
            GuestRequest::UnmountScsi { guest_path, .. }
            | GuestRequest::UnmountVpmem { guest_path, .. }
            | GuestRequest::UnmountShare { guest_path, .. } => guest_path.clone(),
            GuestRequest::RemoveCombinedLayers { root } => root.clone(),
            GuestRequest::RemoveContainerMount {
                container,
                destination,
                ..
            } => return Some(in_container(container, destination)),
            GuestRequest::MountScsi { .. }
            | GuestRequest::EjectScsi { .. }
            | GuestRequest::MountVpmem { .. }
            | GuestRequest::MountShare { .. }
            | GuestRequest::CombineLayers { .. }
            | GuestRequest::AddContainerMount { .. } => return None,
        }),
    })
}

fn in_container(container: &str, destination: &str) -> Held {
    Held::ContainerMount {
        container: container.to_owned(),
        destination: destination.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use cofferdam_ledger::{device::FileKey, request::DiskKind};

    use super::*;
    use crate::Journal;

    const ADDRESS: ScsiAddress = ScsiAddress {
        controller: 0,
        lun: 3,
    };

    fn attach() -> Request {
        Request::Host(HostRequest::AttachScsi {
            address: ADDRESS,
            path: "/d".into(),
            kind: DiskKind::Virtual,
            read_only: false,
        })
    }

    fn detach() -> Request {
        Request::Host(HostRequest::DetachScsi { address: ADDRESS })
    }

    fn journal() -> (tempfile::TempDir, PathBuf, Journal) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::create(&path).unwrap();
        (dir, path, journal)
    }

    #[test]
    fn what_began_counts_as_taken_whatever_became_of_it() {
        let (_dir, path, journal) = journal();
        let step = journal.begin(&attach()).unwrap();
        let held = |known| BTreeMap::from([(Held::Scsi(ADDRESS), (attach(), known))]);
        assert_eq!(Replay::read(&path).unwrap().held, held(false));
        journal.end(step, Some("lost".into())).unwrap();
        let replay = Replay::read(&path).unwrap();
        assert_eq!((replay.held, replay.under_way.len()), (held(false), 0));
        let step = journal.begin(&attach()).unwrap();
        journal.end(step, None).unwrap();
        assert_eq!(Replay::read(&path).unwrap().held, held(true));
    }

    #[test]
    fn what_is_given_back_counts_only_once_it_is_known() {
        let (_dir, path, journal) = journal();
        let step = journal.begin(&attach()).unwrap();
        journal.end(step, None).unwrap();
        let step = journal.begin(&detach()).unwrap();
        assert_eq!(Replay::read(&path).unwrap().held.len(), 1);
        journal.end(step, None).unwrap();
        assert!(Replay::read(&path).unwrap().held.is_empty());
    }

    #[test]
    fn one_destination_in_two_containers_is_two_things_held() {
        let mount = |container: &str| GuestRequest::AddContainerMount {
            container: container.into(),
            source: "/run/gcs/c/1/mounts/m1".into(),
            destination: "/data".into(),
            read_only: false,
        };
        let (_dir, path, journal) = journal();
        for container in ["a", "b"] {
            let step = journal.begin(&Request::Guest(mount(container))).unwrap();
            journal.end(step, None).unwrap();
        }
        let removal = GuestRequest::RemoveContainerMount {
            container: "a".into(),
            source: "/run/gcs/c/1/mounts/m1".into(),
            destination: "/data".into(),
            read_only: false,
        };
        let step = journal.begin(&Request::Guest(removal)).unwrap();
        assert_eq!(Replay::read(&path).unwrap().held.len(), 2);
        journal.end(step, None).unwrap();
        let held: Vec<_> = Replay::read(&path).unwrap().held.into_keys().collect();
        assert_eq!(held, [in_container("b", "/data")]);
    }

    #[test]
    fn a_managed_file_is_due_until_it_is_deleted_or_kept() {
        let (_dir, path, journal) = journal();
        let file = |name: &str| ManagedFile {
            path: name.into(),
            key: FileKey { device: 1, inode: 2 },
        };
        let managed = || Replay::read(&path).unwrap().managed;
        journal.manages(file("/a")).unwrap();
        journal.manages(file("/d")).unwrap();
        assert!(managed().is_empty(), "not attached, so not taken");
        journal.begin(&attach()).unwrap();
        assert_eq!(managed(), [file("/d")]);
        journal.keeps(file("/d")).unwrap();
        assert!(managed().is_empty());
        journal.manages(file("/d")).unwrap();
        journal.begin(&attach()).unwrap();
        let request = Request::Host(HostRequest::DeleteFile { path: "/d".into() });
        let step = journal.begin(&request).unwrap();
        assert_eq!(managed(), [file("/d")]);
        journal.end(step, None).unwrap();
        assert!(managed().is_empty());
        assert_eq!(Replay::read(&path).unwrap().promised, [file("/a")]);
    }

    #[test]
    fn a_line_cut_short_by_a_kill_is_a_step_that_never_began() {
        let (_dir, path, journal) = journal();
        journal.begin(&attach()).unwrap();
        journal.begin(&detach()).unwrap();
        let text = std::fs::read(&path).unwrap();
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        for length in 0..text.len() {
            std::fs::write(&path, &text[..length]).unwrap();
            assert_eq!(
                Replay::read(&path).unwrap().lines,
                lines(&text[..length]),
                "{length}"
            );
        }
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        let (_dir, path, journal) = journal();
        journal.begin(&attach()).unwrap();
        let mut text = std::fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"rubbish\": 1}\n");
        std::fs::write(&path, &text).unwrap();
        assert!(matches!(
            Replay::read(&path),
            Err(JournalError::Line { line: 2, .. })
        ));
        std::fs::write(&path, vec![b'x'; 3 << 20]).unwrap();
        assert!(matches!(
            Replay::read(&path),
            Err(JournalError::Line { line: 1, .. })
        ));
    }

    #[test]
    fn a_journal_is_never_begun_over_another() {
        let (_dir, path, _journal) = journal();
        let error = Journal::create(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
}
