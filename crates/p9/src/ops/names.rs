//! Links, renames and removals.

use std::os::fd::AsFd;

use rustix::{
    fs::{AtFlags, CWD},
    io::{Errno, Result},
};

use crate::{
    fid::Fid,
    node::proc_path,
    resolve::{entry_name, locate},
    wire::{AT_REMOVEDIR, Text},
};

/// Creates a hard link to what `fid` stands for.
pub(super) fn link(dir: &Fid, fid: &Fid, name: Text<'_>) -> Result<()> {
    let name = entry_name(name)?;
    dir.node().require_dir()?;
    same_export(dir, fid)?;
    dir.exported().require_change(dir.node())?;
    // The link below /proc leads to the file itself and no further, even if that is a symbolic link. AT_EMPTY_PATH
    // would do the same but wants a capability.
    rustix::fs::linkat(
        CWD,
        proc_path(fid.node().as_fd()),
        &**dir.node(),
        name,
        AtFlags::SYMLINK_FOLLOW,
    )
}

/// Renames what `fid` stands for, wherever it is now.
pub(super) fn rename(fid: &Fid, dir: &Fid, name: Text<'_>) -> Result<()> {
    let name = entry_name(name)?;
    dir.node().require_dir()?;
    same_export(dir, fid)?;
    let export = fid.exported();
    export.require_change(dir.node())?;
    let (from, old_name) = locate(export, fid.node())?;
    export.require_change(&from)?;
    rustix::fs::renameat(&*from, &*old_name, &**dir.node(), name)
}

/// Renames an entry.
pub(super) fn renameat(from: &Fid, old_name: Text<'_>, to: &Fid, new_name: Text<'_>) -> Result<()> {
    let (old_name, new_name) = (entry_name(old_name)?, entry_name(new_name)?);
    from.node().require_dir()?;
    to.node().require_dir()?;
    same_export(from, to)?;
    from.exported().require_change(from.node())?;
    to.exported().require_change(to.node())?;
    rustix::fs::renameat(&**from.node(), old_name, &**to.node(), new_name)
}

/// Removes an entry.
pub(super) fn unlinkat(dir: &Fid, name: Text<'_>, flags: u32) -> Result<()> {
    let name = entry_name(name)?;
    dir.node().require_dir()?;
    dir.exported().require_change(dir.node())?;
    let flags = match flags {
        0 => AtFlags::empty(),
        AT_REMOVEDIR => AtFlags::REMOVEDIR,
        _ => return Err(Errno::INVAL),
    };
    rustix::fs::unlinkat(&**dir.node(), name, flags)
}

/// Removes what `fid` stands for, wherever it is now.
pub(super) fn remove(fid: &Fid) -> Result<()> {
    let export = fid.exported();
    export.require_change(fid.node())?;
    let (dir, name) = locate(export, fid.node())?;
    export.require_change(&dir)?;
    let flags = if fid.node().is_dir() {
        AtFlags::REMOVEDIR
    } else {
        AtFlags::empty()
    };
    rustix::fs::unlinkat(&*dir, &*name, flags)
}

/// One export's files must not get names in another, even where both are on one file system.
fn same_export(one: &Fid, other: &Fid) -> Result<()> {
    if std::sync::Arc::ptr_eq(one.exported(), other.exported()) {
        Ok(())
    } else {
        Err(Errno::XDEV)
    }
}
