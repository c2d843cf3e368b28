//! Extended attributes: read through a fid of their own, written when such a fid is clunked.
//!
//! Everything is read as the system shows it. Written are `user.`, `trusted.`, file capabilities and POSIX ACLs; the
//! rest of `security.` and `system.` belongs to the host's own policies (labels, measurements) and is refused.

use std::{
    ffi::OsStr,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    sync::Arc,
};

use rustix::{
    fs::XattrFlags,
    io::{Errno, Result},
};

use crate::{
    fid::{Fid, State, XattrWrite},
    node::proc_path,
    session::Session,
    wire::Text,
};

/// The longest value in bytes, and the longest list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MOST_BYTES: usize = 65536;
/// The longest name in bytes (`XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;

/// Makes `new` a fid that reads the attribute `name` of `number`'s file, or with an empty name the list of names.
/// Returns its size in bytes.
pub(super) fn walk(session: &Session, number: u32, new: u32, name: Text<'_>) -> Result<u64> {
    let fid = session.fids().get(number)?;
    let path = proc_path(fid.node().as_fd());
    // Most values are small; one that is not is asked for again with all the room there can be.
    let read = |room: usize| {
        let mut value = vec![0; room];
        let len = if name.0.is_empty() {
            rustix::fs::listxattr(&path, &mut value[..])?
        } else {
            rustix::fs::getxattr(&path, attribute_name(name)?, &mut value[..])?
        };
        value.truncate(len);
        Ok(value)
    };
    let value = match read(1024) {
        Err(Errno::RANGE) => read(MOST_BYTES),
        other => other,
    }?;
    let size = value.len() as u64;
    session.fids().insert(
        new,
        fid.derive(Arc::clone(fid.node()), State::XattrRead(Arc::new(value))),
    )?;
    Ok(size)
}

/// Makes a fid take the value of the attribute `name` of its file.
pub(super) fn create(fid: &Fid, name: Text<'_>, size: u64, flags: u32) -> Result<()> {
    let name = attribute_name(name)?;
    fid.exported().require_change(fid.node())?;
    if !may_write(name.as_bytes()) {
        return Err(Errno::OPNOTSUPP);
    }
    if XattrFlags::from_bits(flags).is_none() {
        return Err(Errno::INVAL);
    }
    let size = usize::try_from(size)
        .ok()
        .filter(|size| *size <= MOST_BYTES)
        .ok_or(Errno::TOOBIG)?;
    let mut state = fid.state();
    if !matches!(&*state, State::Closed) {
        return Err(Errno::BADF);
    }
    *state = State::XattrWrite(XattrWrite {
        name: name.to_owned(),
        value: Vec::new(),
        size,
        flags,
    });
    Ok(())
}

/// Adds bytes to a value under way. Returns how many.
pub(super) fn append(write: &mut XattrWrite, offset: u64, data: &[u8]) -> Result<usize> {
    if offset != write.value.len() as u64 {
        return Err(Errno::INVAL);
    }
    if data.len() > write.size - write.value.len() {
        return Err(Errno::NOSPC);
    }
    write.value.extend_from_slice(data);
    Ok(data.len())
}

/// Sets the attribute whose value is complete.
///
/// The protocol has no message to remove one. The Linux client removes by setting nothing: with `XATTR_REPLACE`, or
/// for an ACL in any case, since an empty ACL is no value that could be set.
pub(super) fn commit(fid: &Fid, write: &XattrWrite) -> Result<()> {
    fid.exported().require_change(fid.node())?;
    if write.value.len() != write.size {
        return Err(Errno::INVAL);
    }
    let path = proc_path(fid.node().as_fd());
    let flags = XattrFlags::from_bits_truncate(write.flags);
    let is_acl = write.name.as_bytes().starts_with(b"system.posix_acl_");
    if write.size == 0 && (is_acl || flags.contains(XattrFlags::REPLACE)) {
        return rustix::fs::removexattr(path, &*write.name);
    }
    rustix::fs::setxattr(path, &*write.name, &write.value, flags)
}

fn attribute_name(name: Text<'_>) -> Result<&OsStr> {
    match name.0 {
        [] => Err(Errno::INVAL),
        bytes if bytes.contains(&0) => Err(Errno::INVAL),
        bytes if bytes.len() > NAME_MAX => Err(Errno::RANGE),
        _ => Ok(name.as_os_str()),
    }
}

fn may_write(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || matches!(
            name,
            b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"
        )
}
