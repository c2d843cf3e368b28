//! The directory of all owners, and each owner's own in it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use cofferdam_journal::{Journal, JournalError, Replay};
use rustix::fs::{FlockOperation, flock};

use crate::{About, Ended, OwnerError, Record};

const LOCK: &str = "lock";
pub(crate) const RECORD: &str = "owner.json";
const JOURNAL: &str = "journal";
pub(crate) const ABOUT: &str = "about.json";
const ENDED: &str = "ended.json";
/// The control socket.
pub(crate) const SOCKET: &str = "control.sock";
/// The most that is read of a record, in bytes.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// Where owners are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// This directory; it is made when the first owner comes.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The default: `/run/cofferdam` for root, else `cofferdam` in `$XDG_RUNTIME_DIR` or a directory of this user's in
    /// `/tmp`. All of them are gone after a reboot, as is everything the records speak of.
    #[must_use]
    pub fn for_this_user() -> Self {
        let user = rustix::process::geteuid();
        if user.is_root() {
            return Self::new("/run/cofferdam");
        }
        match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
            Some(dir) if dir.is_dir() => Self::new(dir.join("cofferdam")),
            _ => Self::new(format!("/tmp/cofferdam-{}", user.as_raw())),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a name this process's own, with an empty journal.
    ///
    /// # Errors
    /// [`OwnerError::Exists`] and [`OwnerError::LeftBehind`] where it is taken; the system's.
    pub fn claim(&self, record: &Record) -> Result<Claim, OwnerError> {
        let private = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        private(&self.0).map_err(OwnerError::io("making", &self.0))?;
        let dir = self.0.join(&record.id);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(self.taken(&record.id));
            }
            Err(error) => return Err(OwnerError::io("making", dir)(error)),
        }
        let made = Claim::make(dir.clone(), record);
        if made.is_err() {
            // Nothing was taken yet, so nothing of it is worth keeping.
            let _ = fs::remove_dir_all(&dir);
        }
        made
    }

    fn taken(&self, id: &str) -> OwnerError {
        let id = id.to_owned();
        match self.entry(&id) {
            Ok(entry) if entry.is_alive() => OwnerError::Exists {
                id,
                owner: entry.record().map_or(0, |record| record.owner.pid),
            },
            Ok(entry) if entry.ended().is_some() => OwnerError::Ended { id },
            _ => OwnerError::LeftBehind { id },
        }
    }

    /// Everybody who is recorded, by name.
    ///
    /// # Errors
    /// The system's. A root that was never made has nobody.
    pub fn entries(&self) -> Result<Vec<Entry>, OwnerError> {
        let list = match fs::read_dir(&self.0) {
            Ok(list) => list,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(OwnerError::io("listing", &self.0)(error)),
        };
        let mut entries = Vec::new();
        for found in list {
            let found = found.map_err(OwnerError::io("listing", &self.0))?;
            if found.file_type().is_ok_and(|kind| kind.is_dir()) {
                entries.push(Entry { dir: found.path() });
            }
        }
        entries.sort_by(|one, two| one.dir.cmp(&two.dir));
        Ok(entries)
    }

    /// The one of this name.
    ///
    /// # Errors
    /// [`OwnerError::Absent`].
    pub fn entry(&self, id: &str) -> Result<Entry, OwnerError> {
        let dir = self.0.join(id);
        let mut parts = Path::new(id).components();
        let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        if is_name && dir.is_dir() {
            Ok(Entry { dir })
        } else {
            Err(OwnerError::Absent { id: id.to_owned() })
        }
    }
}

/// One owner's directory, held.
#[derive(Debug)]
#[must_use = "a claim is closed, or its directory stays"]
pub struct Claim {
    dir: PathBuf,
    journal: Journal,
    /// Held until it is dropped.
    _lock: File,
}

impl Claim {
    fn make(dir: PathBuf, record: &Record) -> Result<Self, OwnerError> {
        // The lock before the record: a directory without a lock held is one that nobody owns.
        let lock = lock_file(&dir)?;
        // Whoever only looks whether it is held lets go of it at once.
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| OwnerError::io("locking", dir.join(LOCK))(error.into()))?;
        let path = dir.join(JOURNAL);
        let journal = Journal::create(&path).map_err(OwnerError::io("making", path))?;
        let claim = Self {
            dir,
            journal,
            _lock: lock,
        };
        claim.note(record)?;
        Ok(claim)
    }

    /// Writes the record anew.
    ///
    /// # Errors
    /// The system's; the earlier record stays then.
    pub fn note(&self, record: &Record) -> Result<(), OwnerError> {
        write_json(&self.dir, RECORD, record)
    }

    /// The journal, for whoever performs steps.
    #[must_use]
    pub fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its directory, as others see it.
    #[must_use]
    pub(crate) fn entry(&self) -> Entry {
        Entry {
            dir: self.dir.clone(),
        }
    }

    /// Removes the directory: nothing is held any more.
    ///
    /// # Errors
    /// The system's.
    pub fn close(self) -> Result<(), OwnerError> {
        fs::remove_dir_all(&self.dir).map_err(OwnerError::io("removing", &self.dir))
    }

    /// Lets go of the directory, which stays: nothing but it is held any more.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn keep(self, ended: &Ended) -> Result<(), OwnerError> {
        write_json(&self.dir, ENDED, ended)
    }
}

/// Writes a file anew, whole or not at all.
pub(crate) fn write_json(dir: &Path, name: &str, content: &impl serde::Serialize) -> Result<(), OwnerError> {
    let (path, new) = (dir.join(name), dir.join(format!("{name}.new")));
    let write = || {
        fs::write(&new, serde_json::to_vec_pretty(content)?)?;
        fs::rename(&new, &path)
    };
    write().map_err(OwnerError::io("writing", &path))
}

/// Somebody's directory, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    dir: PathBuf,
}

impl Entry {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether its owner lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let Ok(lock) = File::open(self.dir.join(LOCK)) else {
            return false;
        };
        flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
    }

    /// Takes a dead owner's place, so that nobody else clears up at the same time. `None` where the owner lives.
    ///
    /// # Errors
    /// The system's.
    pub fn adopt(&self) -> Result<Option<Adopted>, OwnerError> {
        let lock = lock_file(&self.dir)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Adopted {
                dir: self.dir.clone(),
                _lock: lock,
            })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(OwnerError::io("locking", self.dir.join(LOCK))(error.into())),
        }
    }

    /// What the owner says of itself.
    ///
    /// # Errors
    /// The system's, and a record that is none.
    pub fn record(&self) -> Result<Record, OwnerError> {
        let path = self.dir.join(RECORD);
        let mut text = String::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_RECORD_BYTES).read_to_string(&mut text))
            .map_err(OwnerError::io("reading", &path))?;
        serde_json::from_str(&text).map_err(|source| OwnerError::Record { path, source })
    }

    /// How the container ended, where its owner kept the record.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.read_json(ENDED)
    }

    /// What the container is, where its owner has written it.
    #[must_use]
    pub fn about(&self) -> Option<About> {
        self.read_json(ABOUT)
    }

    fn read_json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        let mut text = String::new();
        let file = File::open(self.dir.join(name)).ok()?;
        file.take(MAX_RECORD_BYTES).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// What its journal says.
    ///
    /// # Errors
    /// Those of [`Replay::read`].
    pub fn replay(&self) -> Result<Replay, JournalError> {
        match Replay::read(&self.dir.join(JOURNAL)) {
            // Killed before the first line: nothing was taken.
            Err(JournalError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(Replay::default()),
            other => other,
        }
    }

    /// Where the owner answers.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.dir)
    }
}

/// A dead owner's directory, held by who clears up.
#[derive(Debug)]
pub struct Adopted {
    dir: PathBuf,
    _lock: File,
}

impl Adopted {
    /// Removes the directory: nothing is left.
    ///
    /// # Errors
    /// The system's.
    pub fn close(self) -> Result<(), OwnerError> {
        fs::remove_dir_all(&self.dir).map_err(OwnerError::io("removing", &self.dir))
    }
}

/// The control socket in an owner's directory.
pub(crate) fn socket_in(dir: &Path) -> PathBuf {
    dir.join(SOCKET)
}

fn lock_file(dir: &Path) -> Result<File, OwnerError> {
    let path = dir.join(LOCK);
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(OwnerError::io("opening", path))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Isolation, ProcessId};

    fn record(id: &str) -> Record {
        Record {
            id: id.to_owned(),
            owner: ProcessId::own().unwrap(),
            isolation: Isolation::Vm,
            bundle: "/bundle".into(),
            hypervisor: None,
            directories: Vec::new(),
            redirected: Vec::new(),
        }
    }

    /// Whether its lock is free, or is about to be: a child that another test is just starting holds it until it executes.
    pub(crate) fn dies(entry: &Entry) -> bool {
        let begun = std::time::Instant::now();
        while entry.is_alive() && begun.elapsed() < std::time::Duration::from_secs(5) {
            std::thread::yield_now();
        }
        !entry.is_alive()
    }

    #[test]
    fn a_name_is_somebodys_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().join("run"));
        assert!(root.entries().unwrap().is_empty());
        let claim = root.claim(&record("web")).unwrap();
        let entry = root.entry("web").unwrap();
        assert!(entry.is_alive() && entry.adopt().unwrap().is_none());
        assert_eq!(entry.record().unwrap(), record("web"));
        let own = std::process::id();
        assert!(matches!(root.claim(&record("web")), Err(OwnerError::Exists { owner, .. }) if owner == own));
        claim.close().unwrap();
        assert!(matches!(root.entry("web"), Err(OwnerError::Absent { .. })));
        root.claim(&record("web")).unwrap().close().unwrap();
    }

    #[test]
    fn what_a_dead_owner_left_is_adopted_by_one_and_then_gone() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        drop(root.claim(&record("web")).unwrap());
        let entry = root.entry("web").unwrap();
        assert!(dies(&entry));
        assert!(matches!(
            root.claim(&record("web")),
            Err(OwnerError::LeftBehind { .. })
        ));
        let adopted = entry.adopt().unwrap().unwrap();
        assert!(entry.adopt().unwrap().is_none(), "somebody clears up already");
        adopted.close().unwrap();
        assert!(root.entries().unwrap().is_empty());
    }

    #[test]
    fn names_that_are_paths_are_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().join("run"));
        for id in ["", ".", "..", "../run", "/"] {
            assert!(root.entry(id).is_err(), "{id}");
        }
    }

    #[test]
    fn a_directory_without_a_journal_or_a_record_is_cleared_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir(dir.path().join("half")).unwrap();
        let entry = root.entry("half").unwrap();
        assert!(dies(&entry) && entry.record().is_err());
        assert_eq!(entry.replay().unwrap(), Replay::default());
        entry.adopt().unwrap().unwrap().close().unwrap();
    }
}
