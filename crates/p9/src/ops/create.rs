//! New entries, and whose they are.
//!
//! The server creates with its own rights and then gives the entry to the user of the request, as far as the system
//! and the file system let it: a server that is not root, or a file system without owners, keeps its own owner. See
//! decision 0033.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{CWD, Dev, FileType, Mode, OFlags},
    io::{Errno, Result},
};

use crate::{
    fid::{Fid, OpenFile, State},
    node::{Node, proc_path},
    ops::data::system_flags,
    resolve::{self, BENEATH, entry_name},
    session::Session,
    wire::{NO_UID, OpenFlags, Qid, Text},
};

/// The permission bits and set-ID bits of a mode.
const PERMISSIONS: u32 = 0o7777;
/// How often creating and opening are tried when the entry comes and goes meanwhile.
const RETRIES: usize = 8;

/// Creates a regular file in the directory that `number` stands for, and makes `number` that open file.
pub(super) fn file(
    session: &Session,
    number: u32,
    name: Text<'_>,
    flags: OpenFlags,
    mode: u32,
    gid: u32,
) -> Result<Qid> {
    let fid = session.fids().get(number)?;
    if !matches!(&*fid.state(), State::Closed) {
        return Err(Errno::BADF);
    }
    let name = new_entry(&fid, name)?;
    let dir = fid.node();
    let (node, fd) = create_or_open(&fid, dir, name, flags, mode, gid)?;
    let qid = fid.exported().qids().qid(&node.stat()?)?;
    let open = State::File(Arc::new(OpenFile { fd }));
    session
        .fids()
        .replace(number, &fid, fid.derive(Arc::new(node), open))?;
    Ok(qid)
}

fn create_or_open(
    fid: &Fid,
    dir: &Node,
    name: &OsStr,
    flags: OpenFlags,
    mode: u32,
    gid: u32,
) -> Result<(Node, OwnedFd)> {
    let system = system_flags(flags) - OFlags::NOATIME;
    for _ in 0..RETRIES {
        // Always exclusive, so that this never opens what is there: it might be a FIFO or a device.
        let create =
            system | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        match rustix::fs::openat2(
            dir,
            name,
            create,
            Mode::from_raw_mode(mode & PERMISSIONS),
            BENEATH,
        ) {
            Ok(fd) => {
                let handle = rustix::fs::openat(
                    CWD,
                    proc_path(fd.as_fd()),
                    OFlags::PATH | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                let node = Node::new(handle)?;
                give_to_user(fid, dir, &node, gid, Some(mode))?;
                return Ok((node, fd));
            }
            Err(Errno::EXIST) if !flags.contains(OpenFlags::EXCLUSIVE) => {}
            Err(Errno::AGAIN) => continue,
            Err(errno) => return Err(errno),
        }
        match resolve::child(fid.exported(), dir, name) {
            Ok(node) if node.is_dir() => return Err(Errno::ISDIR),
            Ok(node) => {
                let fd = node.reopen(system)?;
                return Ok((node, fd));
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::AGAIN)
}

/// Creates a directory.
pub(super) fn directory(fid: &Fid, name: Text<'_>, mode: u32, gid: u32) -> Result<Qid> {
    let name = new_entry(fid, name)?;
    rustix::fs::mkdirat(&**fid.node(), name, Mode::from_raw_mode(mode & PERMISSIONS))?;
    created(fid, name, gid, Some(mode))
}

/// Creates a symbolic link. Its target is the guest's business and is not looked at.
pub(super) fn symlink(fid: &Fid, name: Text<'_>, target: Text<'_>, gid: u32) -> Result<Qid> {
    let name = new_entry(fid, name)?;
    rustix::fs::symlinkat(target.as_os_str(), &**fid.node(), name)?;
    created(fid, name, gid, None)
}

/// Creates a regular file, FIFO, socket or, if that is allowed, a device node.
pub(super) fn node(
    fid: &Fid,
    name: Text<'_>,
    mode: u32,
    (major, minor): (u32, u32),
    gid: u32,
    allow_devices: bool,
) -> Result<Qid> {
    let name = new_entry(fid, name)?;
    let kind = match FileType::from_raw_mode(mode) {
        // mknod(2): no type means a regular file.
        FileType::Unknown if mode & !PERMISSIONS == 0 => FileType::RegularFile,
        kind @ (FileType::RegularFile | FileType::Fifo | FileType::Socket) => kind,
        // An overlay's whiteout stands for no device.
        FileType::CharacterDevice if (major, minor) == (0, 0) => FileType::CharacterDevice,
        kind @ (FileType::CharacterDevice | FileType::BlockDevice) if allow_devices => kind,
        FileType::CharacterDevice | FileType::BlockDevice => return Err(Errno::PERM),
        _ => return Err(Errno::INVAL),
    };
    let device: Dev = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(
        &**fid.node(),
        name,
        kind,
        Mode::from_raw_mode(mode & PERMISSIONS),
        device,
    )?;
    created(fid, name, gid, Some(mode))
}

/// Checks that the fid's directory may get an entry of this name.
fn new_entry<'a>(fid: &Fid, name: Text<'a>) -> Result<&'a OsStr> {
    let name = entry_name(name)?;
    fid.node().require_dir()?;
    fid.exported().require_change(fid.node())?;
    Ok(name)
}

fn created(fid: &Fid, name: &OsStr, gid: u32, mode: Option<u32>) -> Result<Qid> {
    let node = resolve::child(fid.exported(), fid.node(), name)?;
    give_to_user(fid, fid.node(), &node, gid, mode)?;
    fid.exported().qids().qid(&node.stat()?)
}

/// Gives a new entry its owner, group and mode.
///
/// In a set-group-ID directory the system has chosen the group already, and handed the bit on to a directory. The
/// server's own umask may have taken bits away, which the guest's mode, with the guest's umask in it, wants back;
/// but not where a default ACL decided.
fn give_to_user(fid: &Fid, dir: &Node, node: &Node, gid: u32, mode: Option<u32>) -> Result<()> {
    let inherits_group = u32::from(dir.stat()?.stx_mode) & Mode::SGID.as_raw_mode() != 0;
    let stat = node.stat()?;
    let wanted_uid = Some(fid.uid()).filter(|uid| *uid != NO_UID && *uid != stat.stx_uid);
    let wanted_gid = Some(gid).filter(|gid| *gid != NO_UID && *gid != stat.stx_gid && !inherits_group);
    if wanted_uid.is_some() || wanted_gid.is_some() {
        match node.chown(wanted_uid, wanted_gid) {
            // Not root, no such user in this user namespace, or a file system without owners.
            Err(Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP) => {
                tracing::debug!(uid = fid.uid(), gid, "a new entry keeps the server's owner");
            }
            other => other?,
        }
    }
    let Some(mode) = mode else { return Ok(()) };
    let now = u32::from(node.stat()?.stx_mode) & PERMISSIONS;
    let inherited = if node.is_dir() {
        now & Mode::SGID.as_raw_mode()
    } else {
        0
    };
    let mut wanted = mode & PERMISSIONS | inherited;
    if wanted & 0o777 != now & 0o777 && has_default_acl(dir) {
        wanted = wanted & !0o777 | now & 0o777;
    }
    if wanted == now { Ok(()) } else { node.chmod(wanted) }
}

fn has_default_acl(dir: &Node) -> bool {
    let mut none = [0_u8; 0];
    rustix::fs::getxattr(proc_path(dir.as_fd()), c"system.posix_acl_default", &mut none[..]).is_ok()
}
