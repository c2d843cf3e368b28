//! What can go wrong with an owner's directory.

use std::{io, path::PathBuf};

use cofferdam_network::NetworkError;

/// Why an owner's directory could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The system refused something.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The name is in use by somebody who lives.
    #[error("{id} exists: process {owner} runs it; choose another name")]
    Exists {
        /// The name.
        id: String,
        /// Its owner's process number.
        owner: u32,
    },
    /// The name was used by somebody who is gone and left something.
    #[error("{id} exists: its owner is gone; `cofferdam fsck --repair {id}` frees what it left")]
    LeftBehind {
        /// The name.
        id: String,
    },
    /// The name is that of a container that has ended.
    #[error("{id} exists: it has ended; `cofferdam rm {id}` removes it")]
    Ended {
        /// The name.
        id: String,
    },
    /// There is nobody of that name.
    #[error("{id} does not exist")]
    Absent {
        /// The name.
        id: String,
    },
    /// Its journal cannot be understood.
    #[error("reading the journal {path}: {source}", path = path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: cofferdam_journal::JournalError,
    },
    /// Files that were to be deleted are there still.
    #[error("{} is left behind; `cofferdam fsck --repair {id}` frees it", named(files))]
    FilesLeft {
        /// Whose.
        id: String,
        /// The auto-managed disks.
        files: Vec<PathBuf>,
    },
    /// An interface that led to the VM could not be looked at, or be given its place back.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The record cannot be understood.
    #[error("{path}: {source}", path = path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

fn named(files: &[PathBuf]) -> String {
    let named: Vec<_> = files
        .iter()
        .map(|file| format!("auto-managed disk {}", file.display()))
        .collect();
    named.join(", ")
}

impl OwnerError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
