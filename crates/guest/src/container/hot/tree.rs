//! A tree of mounts that hangs nowhere yet.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use super::point::Point;
use cofferdam_mounting::mountinfo::Mount;

use crate::{
    error::{AgentError, During, Result},
    storage::mount_attr,
};

/// A copy of a part of the VM's mounts.
#[derive(Debug)]
pub(super) struct Tree {
    tree: OwnedFd,
    id: u64,
    device: String,
    is_directory: bool,
    source: String,
    read_only: bool,
}

/// Opens what is to be mounted. Not through a link: what lies below a share is in the hands of whoever writes there,
/// and a link would be followed into the VM.
pub(super) fn open_source(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(|error| match error {
        Errno::LOOP => AgentError::Invalid(format!("source {}: a symbolic link leads there", path.display())),
        error => AgentError::Io {
            action: format!("opening source {}", path.display()),
            source: error.into(),
        },
    })
}

impl Tree {
    /// Copies the mounts at `source`, which `name` names, cut off from the VM's own.
    pub(super) fn of(source: &OwnedFd, name: &str, read_only: bool) -> Result<Self> {
        let action = || format!("copying the mount {name}");
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = open_tree(source, "", flags).during(action)?;
        mount_attr::isolate(tree.as_fd(), read_only).during(action)?;
        let found = identity(&tree).during(action)?;
        Ok(Self {
            tree,
            id: found.stx_mnt_id,
            device: format!("{}:{}", found.stx_dev_major, found.stx_dev_minor),
            is_directory: FileType::from_raw_mode(found.stx_mode.into()) == FileType::Directory,
            source: name.to_owned(),
            read_only,
        })
    }

    /// Hangs it on a mount point. The calling thread is in the point's namespace.
    pub(super) fn hang(&self, point: &Point) -> Result<()> {
        if point.is_directory != self.is_directory {
            let name = |directory| if directory { "a directory" } else { "no directory" };
            return Err(AgentError::Invalid(format!(
                "destination {} is {}, and {} is {}",
                point.place.display(),
                name(point.is_directory),
                self.source,
                name(self.is_directory),
            )));
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&self.tree, "", &point.file, "", flags).during(|| {
            format!(
                "mounting {} on {} of the container",
                self.source,
                point.place.display()
            )
        })
    }

    pub(super) fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// The number of its topmost mount, which it keeps wherever it hangs.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// That mount, so far as it is known without the kernel's list.
    pub(super) fn as_mount(&self, place: &Path) -> Mount {
        Mount {
            id: self.id,
            parent: 0,
            device: self.device.clone(),
            path: place.to_owned(),
            fs_type: String::new(),
            source: String::new(),
            read_only: self.read_only,
        }
    }
}

/// Which mount and which file an open file is. Without asking a server, which may not answer.
pub(super) fn identity(file: &OwnedFd) -> rustix::io::Result<rustix::fs::Statx> {
    let wanted =
        StatxFlags::MNT_ID | StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::INO | StatxFlags::SIZE;
    statx(file, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, wanted)
}
