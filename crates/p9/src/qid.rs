//! Qids: which file, and which state of it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{FileType, Statx},
    io::{Errno, Result},
};

use crate::wire::{Qid, QidType};

/// Inode numbers below this fit a qid path beside a device's index.
const INODE_BITS: u32 = 48;
/// Device index of files whose inode number or device does not fit: their paths are handed out one by one.
const ONE_BY_ONE: u64 = 0xffff;
/// The most paths handed out one by one in an export, so that a guest cannot make the table grow for ever.
const MOST_ONE_BY_ONE: usize = 1 << 20;

/// A file's identity on the host: device and inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    /// Device number, major in the upper half.
    pub(crate) dev: u64,
    /// Inode number.
    pub(crate) ino: u64,
}

impl FileId {
    /// The identity in a stat.
    pub(crate) fn of(stat: &Statx) -> Self {
        Self {
            dev: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
            ino: stat.stx_ino,
        }
    }
}

/// Turns identities into qid paths, so that no two files of an export share one.
///
/// The root's own device gets the inode number itself; other file systems mounted below get an index in the upper
/// 16 bits; whatever fits neither gets the next number of a space of its own.
#[derive(Debug)]
pub(crate) struct QidPaths {
    root_dev: u64,
    others: Mutex<Others>,
}

#[derive(Debug, Default)]
struct Others {
    devices: HashMap<u64, u64>,
    one_by_one: HashMap<FileId, u64>,
}

impl QidPaths {
    /// For an export whose root is on device `root_dev`.
    pub(crate) fn new(root_dev: u64) -> Self {
        Self {
            root_dev,
            others: Mutex::default(),
        }
    }

    /// The qid path of a file.
    ///
    /// # Errors
    /// `EOVERFLOW`: the table for numbers that do not fit is full.
    pub(crate) fn path(&self, id: FileId) -> Result<u64> {
        let fits = id.ino >> INODE_BITS == 0;
        if id.dev == self.root_dev && fits {
            return Ok(id.ino);
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if fits {
            let next = others.devices.len() as u64 + 1;
            if next < ONE_BY_ONE || others.devices.contains_key(&id.dev) {
                let index = *others.devices.entry(id.dev).or_insert(next);
                return Ok(index << INODE_BITS | id.ino);
            }
        }
        let next = others.one_by_one.len();
        if let Some(path) = others.one_by_one.get(&id) {
            return Ok(*path);
        }
        if next >= MOST_ONE_BY_ONE {
            return Err(Errno::OVERFLOW);
        }
        let path = ONE_BY_ONE << INODE_BITS | next as u64;
        others.one_by_one.insert(id, path);
        Ok(path)
    }

    /// The qid of a file as it is now.
    ///
    /// # Errors
    /// As [`QidPaths::path`].
    pub(crate) fn qid(&self, stat: &Statx) -> Result<Qid> {
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        Ok(Qid {
            kind: qid_type(kind),
            version: version(stat),
            path: self.path(FileId::of(stat))?,
        })
    }
}

/// A file type as a qid shows it.
pub(crate) fn qid_type(kind: FileType) -> QidType {
    match kind {
        FileType::Directory => QidType::DIRECTORY,
        FileType::Symlink => QidType::SYMLINK,
        _ => QidType::empty(),
    }
}

/// A number that changes when the content or the attributes do. The change time moves with every change, the
/// modification time is mixed in for file systems that keep only that. Multiplying spreads a change of one
/// nanosecond over the 32 bits kept.
fn version(stat: &Statx) -> u32 {
    let nanoseconds =
        |sec: i64, nsec: u32| sec.wrapping_mul(1_000_000_000).wrapping_add(i64::from(nsec)) as u64;
    let changed = nanoseconds(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec);
    let modified = nanoseconds(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
    let mixed = (changed ^ modified.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn files_of_several_devices_never_share_a_path() {
        let paths = QidPaths::new(7);
        let mut seen = HashSet::new();
        for dev in [7, 8, 9 << 32] {
            for ino in [1, 2, (1 << 48) - 1, 1 << 48, (1 << 48) + 1, u64::MAX] {
                let id = FileId { dev, ino };
                let path = paths.path(id).unwrap();
                assert!(seen.insert(path), "{id:?} shares a path");
                assert_eq!(paths.path(id).unwrap(), path, "{id:?} keeps its path");
            }
        }
    }

    #[test]
    fn a_file_on_the_roots_device_keeps_its_inode_number() {
        assert_eq!(QidPaths::new(7).path(FileId { dev: 7, ino: 12 }).unwrap(), 12);
    }

    #[test]
    fn more_devices_than_indices_still_get_distinct_paths() {
        let paths = QidPaths::new(0);
        let mut seen = HashSet::new();
        for dev in 1..70_000 {
            assert!(seen.insert(paths.path(FileId { dev, ino: 5 }).unwrap()));
        }
    }
}
