//! Tlock and Tgetlock.

use std::sync::Arc;

use rustix::{
    fs::FlockOperation,
    io::{Errno, Result},
};

use crate::{
    fid::{Fid, State},
    lock::Range,
    wire::{LockStatus, LockType},
};

/// Takes or gives back a lock.
pub(super) fn set(fid: &Fid, kind: u8, start: u64, length: u64, process: u32) -> Result<LockStatus> {
    let kind = LockType::from_wire(kind).ok_or(Errno::INVAL)?;
    let range = Range::new(start, length)?;
    let dir = match &*fid.state() {
        State::File(_) => None,
        State::Dir(dir) => Some(Arc::clone(dir)),
        _ => return Err(Errno::BADF),
    };
    let Some(dir) = dir else {
        return fid.locks().set(fid, process, kind, range);
    };
    // The system has no record locks on directories, so this was flock(2) in the guest, and is here.
    let operation = match kind {
        LockType::Read => FlockOperation::NonBlockingLockShared,
        LockType::Write => FlockOperation::NonBlockingLockExclusive,
        LockType::Unlock => FlockOperation::NonBlockingUnlock,
    };
    match rustix::fs::flock(&dir.fd, operation) {
        Ok(()) => Ok(LockStatus::Success),
        Err(Errno::AGAIN) => Ok(LockStatus::Blocked),
        Err(errno) => Err(errno),
    }
}

/// Which lock would stand in the way: the type, start, length and process of Rgetlock. Processes of the host are not
/// named to the guest.
pub(super) fn test(
    fid: &Fid,
    kind: u8,
    start: u64,
    length: u64,
    process: u32,
) -> Result<(u8, u64, u64, u32)> {
    let kind = match LockType::from_wire(kind).ok_or(Errno::INVAL)? {
        // What the Linux client sends whatever its process asked for: any lock may be in the way then.
        LockType::Unlock => LockType::Write,
        kind => kind,
    };
    let range = Range::new(start, length)?;
    if !matches!(&*fid.state(), State::File(_)) {
        return Err(Errno::BADF);
    }
    Ok(match fid.locks().test(fid, kind, range)? {
        Some(lock) => (lock.kind.to_wire(), lock.start, lock.length, 0),
        None => (LockType::Unlock.to_wire(), start, length, process),
    })
}
