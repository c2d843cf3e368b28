//! One entry of a tar stream, with everything its extended headers said about it.

/// A name, what it is, and whom it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path as the archive has it: not empty, without NUL bytes, not normalised (`./a/../b` and `/a` occur).
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-user-ID, set-group-ID and sticky: at most `0o7777`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When it was last modified.
    pub mtime: Time,
    /// Extended attributes (`SCHILY.xattr.*`, `LIBARCHIVE.xattr.*`), by ascending name, each name once.
    pub xattrs: Vec<Xattr>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its size in bytes, holes included.
        size: u64,
        /// Where its data is, ascending and without overlap; `None` where all of it is in the archive.
        segments: Option<Vec<Segment>>,
    },
    /// Another name of a file that is somewhere in the archive, before or after.
    HardLink {
        /// The path of that file, as [`Entry::path`].
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to; not a path of the archive, and not checked.
        target: Vec<u8>,
    },
    /// A directory.
    Directory,
    /// A character device.
    CharacterDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// A piece of a sparse file that holds data. In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts in the file.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds since 1970; negative before.
    pub seconds: i64,
    /// Nanoseconds after that, below 10⁹.
    pub nanoseconds: u32,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// The whole name, with its namespace (`security.capability`).
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}
