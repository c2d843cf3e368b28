//! From a directory and a name to a [`Node`], without ever leaving the export.

use std::{
    ffi::{OsStr, OsString},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, Statx},
    io::{Errno, Result},
};

use crate::{
    export::Exported,
    node::{Node, proc_path},
    wire::Text,
};

/// The longest name of a directory entry in bytes.
const NAME_MAX: usize = 255;
/// How often a resolution that a concurrent rename disturbed is tried again.
const RETRIES: usize = 8;

/// How every name is resolved: below the directory, no link of any kind followed.
pub(crate) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// A name of the client as that of one directory entry.
///
/// # Errors
/// `EINVAL` for names no entry can have: empty, `.`, `..`, with a slash or NUL; `ENAMETOOLONG`.
pub(crate) fn entry_name(name: Text<'_>) -> Result<&OsStr> {
    if name.0.len() > NAME_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    if is_entry_name(name.0) {
        Ok(name.as_os_str())
    } else {
        Err(Errno::INVAL)
    }
}

/// Whether a directory entry can have this name.
pub(crate) fn is_entry_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// One step of a walk: an entry, or `..`, which at the root stays there.
pub(crate) fn step(export: &Exported, dir: &Arc<Node>, name: Text<'_>) -> Result<(Arc<Node>, Statx)> {
    dir.require_dir()?;
    if name.0 == b".." {
        let parent = if export.is_root(dir) {
            Arc::clone(export.root())
        } else {
            locate(export, dir)?.0
        };
        let stat = parent.stat()?;
        return Ok((parent, stat));
    }
    let (node, stat) = child_with_stat(export, dir, entry_name(name)?)?;
    Ok((Arc::new(node), stat))
}

/// The entry `name` of `dir`; a symbolic link is returned as itself.
pub(crate) fn child(export: &Exported, dir: &Node, name: &OsStr) -> Result<Node> {
    Ok(child_with_stat(export, dir, name)?.0)
}

fn child_with_stat(export: &Exported, dir: &Node, name: &OsStr) -> Result<(Node, Statx)> {
    dir.require_dir()?;
    if !export.shows(dir, name) {
        return Err(Errno::NOENT);
    }
    Node::with_stat(open_beneath(dir, Path::new(name), OFlags::empty())?)
}

fn open_beneath(dir: &Node, path: &Path, flags: OFlags) -> Result<rustix::fd::OwnedFd> {
    let flags = flags | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut last = Errno::AGAIN;
    for _ in 0..RETRIES {
        match rustix::fs::openat2(dir, path, flags, Mode::empty(), BENEATH) {
            // The kernel could not rule out that a rename meanwhile led outside.
            Err(Errno::AGAIN) => last = Errno::AGAIN,
            // Something led outside, or to a link where a directory was.
            Err(Errno::XDEV) => return Err(Errno::NOENT),
            other => return other,
        }
    }
    Err(last)
}

/// The directory and the name where `node` is now, for the few messages that name a file by its fid alone.
///
/// The system's own path of the handle says where to look, so renames are followed; but it is only a hint. The
/// directory is resolved anew beneath the root, and the entry found there must be the same file.
///
/// # Errors
/// `ESTALE`: it is no longer at a place of this export; `EBUSY`: it is the root itself.
pub(crate) fn locate(export: &Exported, node: &Node) -> Result<(Arc<Node>, OsString)> {
    if export.is_root(node) {
        return Err(Errno::BUSY);
    }
    let path = current_path(node)?;
    let below = path
        .strip_prefix(current_path(export.root())?)
        .map_err(|_| Errno::STALE)?;
    let name = below.file_name().ok_or(Errno::STALE)?;
    let dir = match below.parent() {
        None => return Err(Errno::STALE),
        Some(parent) if parent.as_os_str().is_empty() => Arc::clone(export.root()),
        Some(parent) => {
            let first = parent.components().next().ok_or(Errno::STALE)?;
            if !export.shows(export.root(), first.as_os_str()) {
                return Err(Errno::STALE);
            }
            let fd = open_beneath(export.root(), parent, OFlags::DIRECTORY).map_err(|_| Errno::STALE)?;
            Arc::new(Node::new(fd)?)
        }
    };
    let found = child(export, &dir, name).map_err(|_| Errno::STALE)?;
    if found.id() != node.id() {
        return Err(Errno::STALE);
    }
    Ok((dir, name.to_owned()))
}

fn current_path(node: &Node) -> Result<PathBuf> {
    let target = rustix::fs::readlink(proc_path(node.as_fd()), Vec::new())?;
    Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_entry_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"/etc", b"a\0b", b"..\0"] {
            assert_eq!(entry_name(Text(bad)).unwrap_err(), Errno::INVAL, "{bad:?}");
        }
        assert_eq!(entry_name(Text(&[b'a'; 256])).unwrap_err(), Errno::NAMETOOLONG);
        for good in [&b"a"[..], b"...", b"..a", b"\xff\xfe", &[b'a'; 255]] {
            assert_eq!(entry_name(Text(good)).unwrap().as_bytes(), good);
        }
    }
}
