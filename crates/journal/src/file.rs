//! Writing the journal.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use cofferdam_ledger::Request;

use crate::record::{ManagedFile, Record, StepNumber};

/// The journal of one VM, open for writing. Clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<Mutex<Inner>>,
    path: PathBuf,
}

#[derive(Debug)]
struct Inner {
    file: File,
    last: StepNumber,
}

impl Journal {
    /// Begins a new journal, for its owner's eyes only.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::AlreadyExists`] where there is one already: it has to be replayed first.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            inner: Arc::new(Mutex::new(Inner { file, last: 0 })),
            path: path.to_owned(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that a step is about to be performed.
    ///
    /// # Errors
    /// The system's. The step must not be performed then if it takes something.
    pub fn begin(&self, request: &Request) -> io::Result<StepNumber> {
        let mut inner = self.inner();
        let step = inner.last + 1;
        let request = request.clone();
        inner.write(&Record::Begin { step, request })?;
        inner.last = step;
        Ok(step)
    }

    /// Notes how a step ended.
    ///
    /// # Errors
    /// The system's. The step is then taken for one that never ended.
    pub fn end(&self, step: StepNumber, error: Option<String>) -> io::Result<()> {
        self.inner().write(&Record::End { step, error })
    }

    /// Notes that a file is about to be taken that is deleted on release.
    ///
    /// # Errors
    /// The system's. The file must not be taken then.
    pub fn manages(&self, file: ManagedFile) -> io::Result<()> {
        self.inner().write(&Record::Manages(file))
    }

    /// Notes that such a file is not to be deleted.
    ///
    /// # Errors
    /// The system's.
    pub fn keeps(&self, file: ManagedFile) -> io::Result<()> {
        self.inner().write(&Record::Keeps(file))
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A line is written whole or not at all, so nothing is left half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// In one write, so that lines of a process that is killed are not mixed.
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}
