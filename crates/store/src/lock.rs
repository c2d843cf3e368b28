//! Locks of whole files: they end with the process that has them, however it ends.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use crate::{StoreError, error::At};

/// A lock; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Closing alone would not do: a child that another thread starts at this moment has the file open, too, until it
    /// runs its program.
    fn drop(&mut self) {
        // It ends with the last of those who have it open.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Opens a lock's file, making it if it is not there.
fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .at("open", path)
}

impl Lock {
    /// Waits for it; others may have it shared.
    pub(crate) fn shared(path: &Path) -> Result<Self, StoreError> {
        let file = open(path)?;
        flock(&file, FlockOperation::LockShared).at("lock", path)?;
        Ok(Self { file })
    }

    /// Waits for it, alone.
    pub(crate) fn exclusive(path: &Path) -> Result<Self, StoreError> {
        let file = open(path)?;
        flock(&file, FlockOperation::LockExclusive).at("lock", path)?;
        Ok(Self { file })
    }

    /// Takes it alone if nobody has it.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>, StoreError> {
        let file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).at("lock", path),
        }
    }

    /// Takes the lock of an existing file shared: of the one that has the name then, should it be another's meanwhile.
    pub(crate) fn shared_existing(path: &Path) -> Result<Self, StoreError> {
        loop {
            let file = File::open(path).at("open", path)?;
            flock(&file, FlockOperation::LockShared).at("lock", path)?;
            let lock = Self { file };
            if lock.is_of(path)? {
                return Ok(lock);
            }
        }
    }

    /// Whether the file that is locked still has its name.
    fn is_of(&self, path: &Path) -> Result<bool, StoreError> {
        let (locked, named) = (
            self.file.metadata().at("look at", path)?,
            fs::metadata(path).at("find", path)?,
        );
        Ok((locked.dev(), locked.ino()) == (named.dev(), named.ino()))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn a_lock_is_of_the_file_that_has_the_name_when_it_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (path, away) = (dir.path().join("lease"), dir.path().join("away"));
        let removing = Lock::exclusive(&path).unwrap();
        let (sender, taken) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| sender.send(Lock::shared_existing(&path).unwrap()).unwrap());
            // It may or may not wait for the lock already: either way it must not end with the file that goes.
            thread::sleep(std::time::Duration::from_millis(50));
            fs::rename(&path, &away).unwrap();
            fs::write(&path, "").unwrap();
            drop(removing);
            let lease = taken.recv().unwrap();
            assert!(lease.is_of(&path).unwrap());
            assert!(Lock::try_exclusive(&path).unwrap().is_none());
        });
    }

    #[test]
    fn a_lock_of_a_file_that_is_gone_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lease");
        let lock = Lock::exclusive(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(lock.is_of(&path).is_err());
        assert!(Lock::shared_existing(&path).is_err());
        assert!(!path.exists());
    }
}
