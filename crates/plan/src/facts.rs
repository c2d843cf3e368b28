//! What is known about the host's files. Read once, by somebody else; planning looks at nothing but this.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// What a path of the host leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// Its kind.
    pub kind: FileKind,
    /// Which file it is, whatever path led to it.
    pub identity: FileId,
    /// For a regular file that is to be a disk: what speaks against it, in words; `None` if nothing does.
    pub image_problem: Option<String>,
}

/// A file's kind, symbolic links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file of so many bytes.
    File {
        /// Its length.
        bytes: u64,
    },
    /// A block device.
    BlockDevice,
    /// A socket, a pipe, a character device.
    Other,
}

/// A file by device and inode: two paths to one file have one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// `st_dev`; for a block device, its own number (`st_rdev`).
    pub device: u64,
    /// `st_ino`; for a block device 0.
    pub inode: u64,
}

/// The facts about every path of [`crate::wanted`].
#[derive(Debug, Default)]
pub struct Facts {
    by_path: BTreeMap<PathBuf, io::Result<FileFacts>>,
}

impl Facts {
    /// Notes what was found out about a path.
    pub fn insert(&mut self, path: PathBuf, found: io::Result<FileFacts>) {
        self.by_path.insert(path, found);
    }

    /// What is known of a path; one that was never looked at counts as absent.
    pub(crate) fn get(&self, path: &Path) -> Result<&FileFacts, io::Error> {
        match self.by_path.get(path) {
            Some(Ok(facts)) => Ok(facts),
            Some(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }
}

impl FileKind {
    /// In words, for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Directory => "a directory",
            Self::File { .. } => "a regular file",
            Self::BlockDevice => "a block device",
            Self::Other => "no file, directory or block device",
        }
    }
}
