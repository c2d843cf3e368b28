//! Opening, reading and writing what files hold.

use std::sync::{Arc, Mutex};

use rustix::{
    fs::{FileType, OFlags},
    io::{Errno, Result},
};

use crate::{
    fid::{Fid, OpenDir, OpenFile, State},
    ops::xattr,
    session::Session,
    wire::{IO_HEADER_BYTES, OpenFlags, Qid},
};

/// The most data in one read or write that fits the agreed message size.
pub(super) fn iounit(session: &Session) -> u32 {
    session.msize().saturating_sub(IO_HEADER_BYTES)
}

/// The host's flags for the client's, for a file that exists.
///
/// `O_DIRECT` is the guest's wish to go around its own cache. The host's cache is shared with the host's own
/// programs and stays in use: see decision 0031. `O_CREAT` and `O_EXCL` mean nothing here, the rest has no effect.
pub(super) fn system_flags(flags: OpenFlags) -> OFlags {
    let mut system = match (flags.reads(), flags.writes()) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    for (wire, host) in [
        (OpenFlags::TRUNCATE, OFlags::TRUNC),
        (OpenFlags::APPEND, OFlags::APPEND),
        (OpenFlags::DATA_SYNC, OFlags::DSYNC),
        (OpenFlags::SYNC, OFlags::SYNC),
        (OpenFlags::NO_ACCESS_TIME, OFlags::NOATIME),
    ] {
        if flags.contains(wire) {
            system |= host;
        }
    }
    system
}

/// Opens what a fid stands for.
pub(super) fn open(fid: &Fid, flags: OpenFlags) -> Result<Qid> {
    let mut state = fid.state();
    if !matches!(&*state, State::Closed) {
        return Err(Errno::BADF);
    }
    let node = fid.node();
    let changes = flags.writes() || flags.contains(OpenFlags::TRUNCATE);
    if flags.contains(OpenFlags::DIRECTORY) {
        node.require_dir()?;
    }
    *state = if node.is_dir() {
        if changes {
            return Err(Errno::ISDIR);
        }
        let fd = node.reopen(OFlags::RDONLY)?;
        State::Dir(Arc::new(OpenDir {
            fd,
            position: Mutex::new(Some(0)),
        }))
    } else {
        if changes && !fid.exported().is_writable() {
            return Err(Errno::ROFS);
        }
        let system = system_flags(flags);
        let opened = match node.reopen(system) {
            // Only the owner may leave the access time alone; the guest's kernel has checked its user already.
            Err(Errno::PERM) if system.contains(OFlags::NOATIME) => node.reopen(system - OFlags::NOATIME),
            other => other,
        };
        State::File(Arc::new(OpenFile { fd: opened? }))
    };
    drop(state);
    fid.exported().qids().qid(&node.stat()?)
}

/// Reads a file's or an extended attribute's bytes into `room`, and returns how many.
pub(super) fn read(fid: &Fid, offset: u64, room: &mut [u8]) -> Result<usize> {
    let value = match &*fid.state() {
        State::XattrRead(value) => Some(Arc::clone(value)),
        _ => None,
    };
    if let Some(value) = value {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| value.get(offset..))
            .unwrap_or_default();
        let count = rest.len().min(room.len());
        room[..count].copy_from_slice(&rest[..count]);
        return Ok(count);
    }
    let file = fid.file()?;
    retry(|| rustix::io::pread(&file.fd, &mut *room, offset))
}

/// Writes bytes to a file, or adds them to an extended attribute's value under way. Returns how many.
pub(super) fn write(fid: &Fid, offset: u64, data: &[u8]) -> Result<u32> {
    let written = match &mut *fid.state() {
        State::XattrWrite(write) => Some(xattr::append(write, offset, data)?),
        _ => None,
    };
    let written = match written {
        Some(written) => written,
        None => {
            let file = fid.file()?;
            retry(|| rustix::io::pwrite(&file.fd, data, offset))?
        }
    };
    u32::try_from(written).map_err(|_| Errno::OVERFLOW)
}

/// Brings a file or directory to the disk.
pub(super) fn sync(fid: &Fid, data_only: bool) -> Result<()> {
    let open = match &*fid.state() {
        State::File(file) => Ok(Arc::clone(file)),
        State::Dir(dir) => Err(Arc::clone(dir)),
        _ => return Err(Errno::BADF),
    };
    match open {
        Ok(file) if data_only => rustix::fs::fdatasync(&file.fd),
        Ok(file) => rustix::fs::fsync(&file.fd),
        Err(dir) => rustix::fs::fsync(&dir.fd),
    }
}

/// Cuts or lengthens a regular file: through the fid's own open file where that can write, so that it works whatever
/// the permissions have become since.
pub(super) fn truncate(fid: &Fid, size: u64) -> Result<()> {
    match fid.node().kind() {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        _ => return Err(Errno::INVAL),
    }
    if i64::try_from(size).is_err() {
        return Err(Errno::FBIG);
    }
    if let Ok(file) = fid.file() {
        match rustix::fs::ftruncate(&file.fd, size) {
            // Opened for reading only.
            Err(Errno::INVAL | Errno::BADF) => {}
            other => return other,
        }
    }
    rustix::fs::ftruncate(fid.node().reopen(OFlags::WRONLY)?, size)
}

fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
