//! Treaddir: `qid[13] offset[8] type[1] name[s]` an entry; the client goes on with the last entry's offset.
//!
//! The offsets are the file system's own, so a directory is read in linear time whatever its size, and entries that
//! are removed or added meanwhile neither hide nor repeat others.

use std::{
    ffi::OsString,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    sync::{Arc, PoisonError},
};

use rustix::{
    fs::{FileType, RawDir, SeekFrom},
    io::{Errno, Result},
};

use crate::{
    fid::{Fid, State},
    node::Node,
    qid::{FileId, qid_type},
    resolve,
    wire::Qid,
};

/// Bytes of an entry without its name.
const ENTRY_BYTES: usize = 13 + 8 + 1 + 2;
/// Buffer for the system's entries: at least one with the longest name, at most this.
const SYSTEM_BUFFER: std::ops::RangeInclusive<usize> = 512..=64 * 1024;

/// Puts entries from `offset` on into `room`, and returns how many bytes they take; 0 at the end.
pub(super) fn read(fid: &Fid, offset: u64, room: &mut [u8]) -> Result<usize> {
    let dir = match &*fid.state() {
        State::Dir(dir) => Arc::clone(dir),
        State::File(_) => return Err(Errno::NOTDIR),
        _ => return Err(Errno::BADF),
    };
    let mut entries = Entries { room, used: 0 };
    if let Some(names) = fid.exported().only_names(fid.node()) {
        read_allowed(fid, names, offset, &mut entries)?;
        return Ok(entries.used);
    }
    let mut position = dir.position.lock().unwrap_or_else(PoisonError::into_inner);
    if *position != Some(offset) {
        rustix::fs::seek(&dir.fd, SeekFrom::Start(offset))?;
    }
    // Whatever goes wrong from here on, the next call seeks.
    *position = None;
    // An entry takes at most 7/6 of the system's bytes in the reply, so that all of a full buffer fits.
    let size = (entries.room.len() / 7 * 6).clamp(*SYSTEM_BUFFER.start(), *SYSTEM_BUFFER.end());
    let mut buffer = vec![MaybeUninit::uninit(); size];
    let mut system = RawDir::new(&dir.fd, &mut buffer);
    let mut reached = offset;
    while let Some(entry) = system.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(_) if entries.used > 0 => return Ok(entries.used),
            Err(errno) => return Err(errno),
        };
        let name = entry.file_name().to_bytes();
        let after = entry.next_entry_cookie();
        let Some((kind, id)) = identify(fid, name, entry.file_type(), entry.ino())? else {
            // Removed since the system listed it.
            reached = after;
            continue;
        };
        if !entries.push(fid, kind, id, after, name)? {
            return if entries.used > 0 {
                Ok(entries.used)
            } else {
                Err(Errno::INVAL)
            };
        }
        reached = after;
        if system.is_buffer_empty() && entries.is_nearly_full() {
            break;
        }
    }
    *position = Some(reached);
    Ok(entries.used)
}

/// An entry's type and identity. The system's entry tells them, except for `..` at the root, which is the root
/// itself, and on file systems that leave the type out.
fn identify(fid: &Fid, name: &[u8], kind: FileType, ino: u64) -> Result<Option<(FileType, FileId)>> {
    let (export, node) = (fid.exported(), fid.node());
    if name == b".." && export.is_root(node) {
        return Ok(Some((FileType::Directory, node.id())));
    }
    if kind == FileType::Unknown && name != b"." && name != b".." {
        return match resolve::child(export, node, std::ffi::OsStr::from_bytes(name)) {
            Ok(child) => Ok(Some((child.kind(), child.id()))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        };
    }
    let kind = if kind == FileType::Unknown {
        FileType::Directory
    } else {
        kind
    };
    Ok(Some((
        kind,
        FileId {
            dev: node.id().dev,
            ino,
        },
    )))
}

/// The root of an export with allowed names: `.`, `..` and those of the names that exist. Offsets count them.
fn read_allowed(fid: &Fid, names: &[OsString], offset: u64, entries: &mut Entries<'_>) -> Result<()> {
    let root: &Node = fid.node();
    let first = usize::try_from(offset).unwrap_or(usize::MAX);
    for (index, name) in [&b"."[..], b".."].into_iter().enumerate().skip(first) {
        if !entries.push(fid, FileType::Directory, root.id(), index as u64 + 1, name)? {
            return Ok(());
        }
    }
    for (index, name) in names.iter().enumerate().skip(first.saturating_sub(2)) {
        let child = match resolve::child(fid.exported(), root, name) {
            Ok(child) => child,
            Err(_) => continue,
        };
        if !entries.push(fid, child.kind(), child.id(), index as u64 + 3, name.as_bytes())? {
            return Ok(());
        }
    }
    Ok(())
}

/// Entries in a reply.
struct Entries<'a> {
    room: &'a mut [u8],
    used: usize,
}

impl Entries<'_> {
    /// Adds one; false if it does not fit.
    fn push(&mut self, fid: &Fid, kind: FileType, id: FileId, after: u64, name: &[u8]) -> Result<bool> {
        let len = ENTRY_BYTES + name.len();
        let Some(room) = self.room.get_mut(self.used..self.used + len) else {
            return Ok(false);
        };
        // The version is left at 0: only the identity is used from here, and a stat for each entry would be dear.
        let qid = Qid {
            kind: qid_type(kind),
            version: 0,
            path: fid.exported().qids().path(id)?,
        };
        let name_len = u16::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
        room[0] = qid.kind.bits();
        room[1..5].copy_from_slice(&qid.version.to_le_bytes());
        room[5..13].copy_from_slice(&qid.path.to_le_bytes());
        room[13..21].copy_from_slice(&after.to_le_bytes());
        room[21] = dirent_type(kind);
        room[22..24].copy_from_slice(&name_len.to_le_bytes());
        room[24..].copy_from_slice(name);
        self.used += len;
        Ok(true)
    }

    /// Whether another batch of entries would mostly be read in vain.
    fn is_nearly_full(&self) -> bool {
        self.room.len() - self.used < self.room.len() / 4
    }
}

/// `d_type` as Linux numbers it.
fn dirent_type(kind: FileType) -> u8 {
    match kind {
        FileType::Fifo => libc::DT_FIFO,
        FileType::CharacterDevice => libc::DT_CHR,
        FileType::Directory => libc::DT_DIR,
        FileType::BlockDevice => libc::DT_BLK,
        FileType::RegularFile => libc::DT_REG,
        FileType::Symlink => libc::DT_LNK,
        FileType::Socket => libc::DT_SOCK,
        FileType::Unknown => libc::DT_UNKNOWN,
    }
}
