//! Locks of whole files: they end with the process that has them, however it ends.

use std::{
    fs::{File, OpenOptions},
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

    /// Takes an existing file's lock shared.
    pub(crate) fn shared_existing(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).at("open", path)?;
        flock(&file, FlockOperation::LockShared).at("lock", path)?;
        Ok(Self { file })
    }
}
