//! Record locks of a connection.
//!
//! The guest's kernel settles conflicts between its own processes before it asks the server. What is asked here is
//! whether the host or another guest is in the way. So all locks that a connection holds on one file live on one open
//! file description (`F_OFD_SETLK`): they never conflict with each other, and they do with everybody else's. Since
//! one description forgets who took which range, the owners are kept here, and a range is given back to the system
//! only when its last owner lets go. See decision 0032.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::{
    fs::OFlags,
    io::{Errno, Result},
};

use crate::{
    fid::Fid,
    qid::FileId,
    wire::{LockStatus, LockType},
};

/// The most ranges kept for one file, so that a guest cannot make the list grow for ever.
const MOST_RECORDS: usize = 4096;

/// Who asks for a lock: a fid, and the guest's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// [`Fid::id`].
    pub(crate) fid: u64,
    /// The guest's process number.
    pub(crate) process: u32,
}

/// Bytes `start` to `last`, both included; `last` is `u64::MAX` for a range without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    start: u64,
    last: u64,
}

impl Range {
    /// From the protocol's start and length, where length 0 means without end.
    ///
    /// # Errors
    /// `EINVAL` or `EOVERFLOW` for what the system's own record locks cannot say.
    pub(crate) fn new(start: u64, length: u64) -> Result<Self> {
        let most = i64::MAX as u64;
        if start > most || length > most {
            return Err(Errno::INVAL);
        }
        match length {
            0 => Ok(Self {
                start,
                last: u64::MAX,
            }),
            length if start + (length - 1) > most => Err(Errno::OVERFLOW),
            length => Ok(Self {
                start,
                last: start + (length - 1),
            }),
        }
    }

    fn overlaps(self, other: Self) -> bool {
        self.start <= other.last && other.start <= self.last
    }

    /// What is left of `self` without `other`: none, one or two ranges.
    fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let before = (self.start < other.start).then(|| Self {
            start: self.start,
            last: self.last.min(other.start.saturating_sub(1)),
        });
        let after = (self.last > other.last).then(|| Self {
            start: self.start.max(other.last.saturating_add(1)),
            last: self.last,
        });
        before.into_iter().chain(after)
    }

    fn length(self) -> u64 {
        if self.last == u64::MAX {
            0
        } else {
            self.last - self.start + 1
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    owner: Owner,
    range: Range,
    write: bool,
}

/// Who holds what on one file. Pure: the caller does to the system what it is told.
#[derive(Debug, Default)]
struct Records(Vec<Record>);

impl Records {
    /// Whether somebody else of the same connection stands in the way.
    fn conflicts(&self, owner: Owner, range: Range, write: bool) -> bool {
        self.0.iter().any(|record| {
            record.owner.process != owner.process
                && record.owner.fid != owner.fid
                && record.range.overlaps(range)
                && (write || record.write)
        })
    }

    /// Notes a lock that the system granted. It replaces what the same process had there; and what the same fid
    /// had there for another process, unless both only read (a forked process may share the fid).
    fn add(&mut self, owner: Owner, range: Range, write: bool) {
        self.cut(range, |record| {
            record.owner.process == owner.process
                || (record.owner.fid == owner.fid && (write || record.write))
        });
        self.0.push(Record { owner, range, write });
    }

    /// Forgets what the process had in a range, or, if it had nothing, what the fid had (the lock of a parent given
    /// back by its child). Returns the parts that nobody holds any more.
    fn remove(&mut self, owner: Owner, range: Range) -> Vec<Range> {
        let of_process = |record: &Record| record.owner.process == owner.process;
        if self
            .0
            .iter()
            .any(|record| of_process(record) && record.range.overlaps(range))
        {
            self.cut(range, of_process);
        } else {
            self.cut(range, |record| record.owner.fid == owner.fid);
        }
        self.free_parts(range)
    }

    /// Forgets everything of a fid. Returns the parts that nobody holds any more.
    fn remove_fid(&mut self, fid: u64) -> Vec<Range> {
        let of_fid: Vec<_> = self.0.extract_if(.., |record| record.owner.fid == fid).collect();
        of_fid
            .into_iter()
            .flat_map(|record| self.free_parts(record.range))
            .collect()
    }

    fn cut(&mut self, range: Range, matching: impl Fn(&Record) -> bool) {
        let hit: Vec<_> = self
            .0
            .extract_if(.., |record| matching(record) && record.range.overlaps(range))
            .collect();
        for record in hit {
            self.0.extend(
                record
                    .range
                    .without(range)
                    .map(|range| Record { range, ..record }),
            );
        }
    }

    fn free_parts(&self, range: Range) -> Vec<Range> {
        let mut free = vec![range];
        for record in &self.0 {
            free = free
                .into_iter()
                .flat_map(|part| part.without(record.range).collect::<Vec<_>>())
                .collect();
        }
        free
    }
}

/// The locks of one connection.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    files: Mutex<HashMap<FileId, LockedFile>>,
}

#[derive(Debug)]
struct LockedFile {
    /// Carries the locks; open for as long as there are any.
    fd: OwnedFd,
    records: Records,
}

/// A lock in the way, as the system tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InTheWay {
    /// Shared or exclusive.
    pub(crate) kind: LockType,
    /// First byte.
    pub(crate) start: u64,
    /// Bytes; 0 without end.
    pub(crate) length: u64,
}

impl Locks {
    fn lock(&self) -> MutexGuard<'_, HashMap<FileId, LockedFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes, changes or gives back a lock. It never waits: `Blocked` asks the client to come again.
    pub(crate) fn set(&self, fid: &Fid, process: u32, kind: LockType, range: Range) -> Result<LockStatus> {
        let owner = Owner {
            fid: fid.id(),
            process,
        };
        let id = fid.node().id();
        let mut files = self.lock();
        if kind == LockType::Unlock {
            if let Some(file) = files.get_mut(&id) {
                for part in file.records.remove(owner, range) {
                    set_system(&file.fd, LockType::Unlock, part)?;
                }
                if file.records.0.is_empty() {
                    files.remove(&id);
                }
            }
            return Ok(LockStatus::Success);
        }
        let write = kind == LockType::Write;
        if let Some(file) = files.get_mut(&id) {
            if file.records.conflicts(owner, range, write) {
                return Ok(LockStatus::Blocked);
            }
            if file.records.0.len() >= MOST_RECORDS {
                return Err(Errno::NOLCK);
            }
            return take(&file.fd, kind, range, |status| {
                file.records.add(owner, range, write);
                status
            });
        }
        let fd = open_for_locks(fid)?;
        take(&fd, kind, range, |status| status).inspect(|status| {
            if *status == LockStatus::Success {
                let records = Records(vec![Record { owner, range, write }]);
                files.insert(id, LockedFile { fd, records });
            }
        })
    }

    /// Which lock of the host or of another guest would stand in the way.
    pub(crate) fn test(&self, fid: &Fid, kind: LockType, range: Range) -> Result<Option<InTheWay>> {
        let files = self.lock();
        match files.get(&fid.node().id()) {
            Some(file) => test_system(&file.fd, kind, range),
            None => test_system(&open_for_locks(fid)?, kind, range),
        }
    }

    /// Gives back every lock of a fid that is gone.
    pub(crate) fn release(&self, fid: u64) {
        self.lock().retain(|_, file| {
            for part in file.records.remove_fid(fid) {
                if let Err(errno) = set_system(&file.fd, LockType::Unlock, part) {
                    tracing::warn!(%errno, "cannot give a record lock back");
                }
            }
            !file.records.0.is_empty()
        });
    }
}

/// A description of its own for the locks: for reading and writing, where that is allowed, since the system wants
/// the right to write for an exclusive lock.
fn open_for_locks(fid: &Fid) -> Result<OwnedFd> {
    if fid.exported().is_writable() {
        match fid.node().reopen(OFlags::RDWR) {
            // No right to write, or a program that is running: a shared lock may still be had.
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => {}
            other => return other,
        }
    }
    fid.node().reopen(OFlags::RDONLY)
}

fn take(
    fd: &OwnedFd,
    kind: LockType,
    range: Range,
    granted: impl FnOnce(LockStatus) -> LockStatus,
) -> Result<LockStatus> {
    match set_system(fd, kind, range) {
        Ok(()) => Ok(granted(LockStatus::Success)),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(LockStatus::Blocked),
        Err(errno) => Err(errno),
    }
}

fn system_lock(kind: LockType, range: Range) -> libc::flock {
    let l_type = match kind {
        LockType::Read => libc::F_RDLCK,
        LockType::Write => libc::F_WRLCK,
        LockType::Unlock => libc::F_UNLCK,
    };
    libc::flock {
        l_type: l_type as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: range.start as libc::off_t,
        l_len: range.length() as libc::off_t,
        // Must be 0 for open file description locks.
        l_pid: 0,
    }
}

fn set_system(fd: &OwnedFd, kind: LockType, range: Range) -> Result<()> {
    fcntl(fd, FcntlArg::F_OFD_SETLK(&system_lock(kind, range))).map_err(errno)?;
    Ok(())
}

fn test_system(fd: &OwnedFd, kind: LockType, range: Range) -> Result<Option<InTheWay>> {
    let mut lock = system_lock(kind, range);
    fcntl(fd, FcntlArg::F_OFD_GETLK(&mut lock)).map_err(errno)?;
    let kind = match libc::c_int::from(lock.l_type) {
        libc::F_UNLCK => return Ok(None),
        libc::F_RDLCK => LockType::Read,
        _ => LockType::Write,
    };
    let start = u64::try_from(lock.l_start).map_err(|_| Errno::OVERFLOW)?;
    let length = u64::try_from(lock.l_len).map_err(|_| Errno::OVERFLOW)?;
    Ok(Some(InTheWay { kind, start, length }))
}

fn errno(errno: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Owner = Owner { fid: 1, process: 10 };
    const B: Owner = Owner { fid: 2, process: 20 };

    fn range(start: u64, length: u64) -> Range {
        Range::new(start, length).unwrap()
    }

    #[test]
    fn a_range_two_owners_read_is_freed_by_the_second() {
        let mut records = Records::default();
        records.add(A, range(0, 10), false);
        records.add(B, range(5, 10), false);
        assert_eq!(records.remove(A, range(0, 0)), [range(0, 5), range(15, 0)]);
        assert_eq!(records.remove(B, range(0, 0)), [range(0, 0)]);
    }

    #[test]
    fn unlocking_the_middle_keeps_both_ends() {
        let mut records = Records::default();
        records.add(A, range(0, 30), true);
        assert_eq!(records.remove(A, range(10, 10)), [range(10, 10)]);
        assert!(records.conflicts(B, range(0, 10), false));
        assert!(!records.conflicts(B, range(10, 10), true));
        assert!(records.conflicts(B, range(20, 0), false));
    }

    #[test]
    fn a_process_owns_its_locks_through_every_file_it_opened() {
        let other_fid = Owner { fid: 9, ..A };
        let mut records = Records::default();
        records.add(A, range(0, 10), false);
        assert!(!records.conflicts(other_fid, range(0, 10), true));
        records.add(other_fid, range(0, 10), true);
        assert_eq!(records.remove(other_fid, range(0, 10)), [range(0, 10)]);
        assert!(records.0.is_empty());
    }

    #[test]
    fn a_child_gives_back_what_its_parent_took_through_the_same_fid() {
        let child = Owner { process: 11, ..A };
        let mut records = Records::default();
        records.add(A, range(0, 0), true);
        assert_eq!(records.remove(child, range(0, 0)), [range(0, 0)]);
    }

    #[test]
    fn ranges_the_system_cannot_say_are_refused() {
        assert_eq!(Range::new(u64::MAX, 0).unwrap_err(), Errno::INVAL);
        assert_eq!(Range::new(0, u64::MAX).unwrap_err(), Errno::INVAL);
        assert_eq!(Range::new(i64::MAX as u64, 2).unwrap_err(), Errno::OVERFLOW);
        assert!(Range::new(i64::MAX as u64, 1).is_ok());
    }

    proptest! {
        /// Against a model that keeps a set of holders for each byte.
        #[test]
        fn freed_parts_are_those_without_a_holder(
            steps in proptest::collection::vec((0u32..3, 0u64..12, 1u64..6, any::<bool>()), 1..40)
        ) {
            let mut records = Records::default();
            let mut model = vec![std::collections::BTreeSet::new(); 32];
            for (who, start, length, lock) in steps {
                let owner = Owner { fid: u64::from(who), process: who };
                let range = range(start, length);
                let bytes = range.start..=range.last;
                if lock {
                    records.add(owner, range, false);
                    for byte in bytes {
                        model[byte as usize].insert(who);
                    }
                } else {
                    let freed = records.remove(owner, range);
                    for byte in bytes {
                        model[byte as usize].remove(&who);
                        let is_freed = freed.iter().any(|part| part.start <= byte && byte <= part.last);
                        prop_assert_eq!(is_freed, model[byte as usize].is_empty(), "byte {}", byte);
                    }
                }
            }
        }
    }
}
