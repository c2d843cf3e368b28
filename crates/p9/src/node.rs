//! Handles on files of the host: what a fid stands for.
//!
//! A [`Node`] is an `O_PATH` handle. It pins the file whatever happens to its names, grants nothing by itself, and
//! opening it never blocks. Data is reached by reopening it through `/proc/self/fd`, and only where the type, which
//! an inode never changes, is a regular file or a directory.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags},
    io::{Errno, Result},
};

use crate::qid::FileId;

/// An `O_PATH` handle with what never changes about the file.
#[derive(Debug)]
pub(crate) struct Node {
    fd: OwnedFd,
    kind: FileType,
    id: FileId,
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Node {
    /// Takes over an `O_PATH` handle.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self> {
        Ok(Self::with_stat(fd)?.0)
    }

    /// As [`Node::new`], with the stat that it needed anyway.
    pub(crate) fn with_stat(fd: OwnedFd) -> Result<(Self, Statx)> {
        let stat = stat(fd.as_fd())?;
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        Ok((
            Self {
                fd,
                kind,
                id: FileId::of(&stat),
            },
            stat,
        ))
    }

    /// The file's type.
    pub(crate) fn kind(&self) -> FileType {
        self.kind
    }

    /// Which file.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Whether it is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Refuses what is not a directory.
    pub(crate) fn require_dir(&self) -> Result<()> {
        if self.is_dir() { Ok(()) } else { Err(Errno::NOTDIR) }
    }

    /// The attributes now.
    pub(crate) fn stat(&self) -> Result<Statx> {
        stat(self.as_fd())
    }

    /// Opens the data of a regular file, or the entries of a directory.
    ///
    /// FIFOs, sockets and device nodes are refused: opening one can block, or act on the host's hardware. The
    /// guest's kernel opens its own FIFO or device of that name and never asks for this.
    pub(crate) fn reopen(&self, flags: OFlags) -> Result<OwnedFd> {
        match self.kind {
            FileType::RegularFile => {}
            FileType::Directory => {
                let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
                return rustix::fs::openat(self, c".", flags, Mode::empty());
            }
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::NXIO),
        }
        rustix::fs::open(
            proc_path(self.as_fd()),
            flags | OFlags::CLOEXEC | OFlags::NOCTTY,
            Mode::empty(),
        )
    }

    /// Sets the permission bits.
    pub(crate) fn chmod(&self, mode: u32) -> Result<()> {
        // The link below /proc leads to the file itself; fchmod refuses O_PATH handles.
        if self.kind == FileType::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        let mode = Mode::from_raw_mode(mode & 0o7777);
        rustix::fs::chmodat(CWD, proc_path(self.as_fd()), mode, AtFlags::empty())
    }

    /// Sets owner and group; `None` leaves one alone.
    pub(crate) fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let uid = uid.map(rustix::fs::Uid::from_raw);
        let gid = gid.map(rustix::fs::Gid::from_raw);
        rustix::fs::chownat(
            self,
            c"",
            uid,
            gid,
            AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW,
        )
    }
}

/// The path by which the process reaches what a handle stands for, symbolic links included, without looking
/// anything up by name.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The attributes behind a handle.
pub(crate) fn stat(fd: BorrowedFd<'_>) -> Result<Statx> {
    rustix::fs::statx(
        fd,
        c"",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )
}
