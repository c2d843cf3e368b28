//! Why a layer could not be made.

use std::{fmt, io};

use cofferdam_archive::ArchiveError;

/// Why a layer could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive is at fault.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The layer's file, or a temporary one, could not be read or written.
    #[error("could not write the layer: {source}")]
    Write {
        /// The system's reason.
        #[from]
        source: io::Error,
    },
    /// A path leads out of the layer.
    #[error("{path} leads out of the layer's root")]
    OutsideRoot {
        /// The path in the archive.
        path: Show,
    },
    /// A path goes through something that is no directory.
    #[error("{path}: {name} is no directory in this archive")]
    NotADirectory {
        /// The path in the archive.
        path: Show,
        /// The part of it.
        name: Show,
    },
    /// Symbolic links lead to each other, or are too many.
    #[error("{path} goes through more than 40 symbolic links")]
    LinkLoop {
        /// The path in the archive.
        path: Show,
    },
    /// A name does not fit a directory.
    #[error("{path} has a name of {length} bytes; a directory takes 255")]
    LongName {
        /// The path in the archive.
        path: Show,
        /// The name's length, in bytes.
        length: usize,
    },
    /// A `.wh.` entry that names nothing.
    #[error("{path} is a whiteout of nothing that could be there")]
    BadWhiteout {
        /// The path in the archive.
        path: Show,
    },
    /// The root is not a directory in the archive.
    #[error("{path} is the layer's root, and no directory in this archive")]
    RootIsNoDirectory {
        /// The path in the archive.
        path: Show,
    },
    /// A hard link to what is not there.
    #[error("{path} is a hard link to {target}, which is not in this archive")]
    NoTarget {
        /// The link.
        path: Show,
        /// Its target.
        target: Show,
    },
    /// A hard link to a directory.
    #[error("{path} is a hard link to {target}, which is a directory")]
    LinkToDirectory {
        /// The link.
        path: Show,
        /// Its target.
        target: Show,
    },
    /// What the file system has no room for.
    #[error("{path} cannot be in {filesystem}: {what}")]
    Unrepresentable {
        /// The path.
        path: Show,
        /// The file system.
        filesystem: &'static str,
        /// What does not fit, and what would.
        what: String,
    },
    /// The layer is larger than the file system.
    #[error("the layer takes {needed} blocks of 4 KiB; {filesystem} made here has at most {limit}")]
    TooLarge {
        /// The file system.
        filesystem: &'static str,
        /// Blocks it would need.
        needed: u64,
        /// Blocks there are.
        limit: u64,
    },
}

impl LayerError {
    /// What a file system has no room for, of a file whose name somebody else knows.
    pub(crate) fn unnamed(filesystem: &'static str, what: String) -> Self {
        Self::Unrepresentable {
            path: Show(String::new()),
            filesystem,
            what,
        }
    }
}

/// A path or name of an archive, for a message: unprintable bytes escaped, the middle of a long one left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Show(String);

impl Show {
    /// Bytes shown of each end of a long one.
    const END: usize = 120;

    pub(crate) fn new(bytes: &[u8]) -> Self {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        Self(if bytes.len() <= 2 * Self::END {
            text(bytes)
        } else {
            let (head, rest) = bytes.split_at(Self::END);
            format!("{}…{}", text(head), text(&rest[rest.len() - Self::END..]))
        })
    }
}

impl fmt::Display for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
