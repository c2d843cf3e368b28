//! Mount points inside a container: found, made, unmounted and removed.
//!
//! Everything here runs in a thread whose root is the container's. The container may change any link at any time, so
//! a path is walked by the kernel with that root as its end, and what was found is held open while it is used.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStringExt,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, ResolveFlags, fstatfs, mkdirat, mknodat, openat2, readlinkat,
        unlinkat,
    },
    io::Errno,
    mount::{UnmountFlags, unmount as unmount_at},
    process::fchdir,
};

use super::tree::identity;
use crate::{
    error::{AgentError, During, Result},
    storage::path::RUNTIME_OWN,
};

/// File systems that are the kernel's or the runtime's wherever a container's links lead to them.
const KERNEL_OWN: [(i64, &str); 5] = [
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x6367_7270, "cgroup2"),
    (0x0027_e0eb, "cgroup"),
    (0x1cd1, "devpts"),
];

/// The container's root as a thread inside sees it.
pub(super) struct Root<'a> {
    root: BorrowedFd<'a>,
    /// The agent's open files, by number.
    own_files: BorrowedFd<'a>,
}

/// A mount point that was found.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) file: OwnedFd,
    pub(super) is_directory: bool,
    /// Where it really is, links resolved.
    pub(super) place: PathBuf,
    /// What had to be made, the outermost first.
    pub(super) made: Vec<Made>,
}

/// A directory or file that was made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    place: PathBuf,
    is_directory: bool,
    inode: u64,
}

/// Why a mount was not taken off.
#[derive(Debug)]
pub(super) enum Unmounting {
    /// Somebody uses it.
    Busy(PathBuf),
    Failed(AgentError),
}

impl From<AgentError> for Unmounting {
    fn from(error: AgentError) -> Self {
        Self::Failed(error)
    }
}

impl From<Unmounting> for AgentError {
    fn from(error: Unmounting) -> Self {
        match error {
            Unmounting::Failed(error) => error,
            Unmounting::Busy(place) => Self::Busy {
                what: format!("mount {} of the container", place.display()),
                holder: "somebody uses it".into(),
            },
        }
    }
}

impl<'a> Root<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, own_files: BorrowedFd<'a>) -> Self {
        Self { root, own_files }
    }

    /// Opens a path without access to it. Links, absolute ones too, and their `..` end at the root.
    fn open(&self, path: &Path, flags: OFlags, further: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let relative = if relative.as_os_str().is_empty() {
            Path::new(".")
        } else {
            relative
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | further;
        openat2(
            self.root,
            relative,
            flags | OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
    }

    /// Where an open file is.
    fn place(&self, file: &OwnedFd) -> Result<PathBuf> {
        let number = file.as_fd().as_raw_fd().to_string();
        let link = readlinkat(self.own_files, number, Vec::new())
            .during(|| "asking where a file of the container is".into())?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(link.into_bytes())))
    }

    /// Where it is, unless that is not to be touched: a link may have led to a directory of the runtime.
    fn free_place(&self, file: &OwnedFd, destination: &Path) -> Result<PathBuf> {
        let refuse = |why: String| {
            let destination = destination.display();
            Err(AgentError::Invalid(format!("destination {destination}: {why}")))
        };
        let place = self.place(file)?;
        if RUNTIME_OWN.iter().any(|own| place.starts_with(own)) {
            return refuse(format!(
                "it leads to {}, which belongs to the container's runtime",
                place.display()
            ));
        }
        let found = fstatfs(file).during(|| format!("looking at {}", place.display()))?;
        // The field's type depends on the C library.
        #[allow(clippy::unnecessary_cast, reason = "it is no i64 everywhere")]
        let kind = found.f_type as i64;
        if let Some((_, name)) = KERNEL_OWN.iter().find(|(magic, _)| *magic == kind) {
            return refuse(format!(
                "it leads to {} on {name}, which is the kernel's",
                place.display()
            ));
        }
        Ok(place)
    }
}

/// Opens the mount point at `destination`, and makes what is missing: directories, and at its end a directory or a
/// file.
pub(super) fn find_or_make(root: &Root<'_>, destination: &Path, directory: bool) -> Result<Point> {
    let mut made = Vec::new();
    walk(root, destination, directory, &mut made).map_or_else(
        |error| {
            remove(root, &made);
            Err(error)
        },
        |(file, place, is_directory)| {
            Ok(Point {
                file,
                is_directory,
                place,
                made: made.clone(),
            })
        },
    )
}

fn walk(
    root: &Root<'_>,
    destination: &Path,
    directory: bool,
    made: &mut Vec<Made>,
) -> Result<(OwnedFd, PathBuf, bool)> {
    let action = |path: &Path| format!("finding {} in the container", path.display());
    let open = |path: &Path, flags| root.open(path, flags, ResolveFlags::empty());
    let mut here = PathBuf::from("/");
    let mut parts = destination
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .peekable();
    while let Some(part) = parts.next() {
        let next = here.join(part);
        if let Err(Errno::NOENT) = open(&next, OFlags::empty()) {
            let parent = open(&here, OFlags::DIRECTORY).during(|| action(&here))?;
            root.free_place(&parent, destination)?;
            let as_directory = directory || parts.peek().is_some();
            let new = make(&parent, part.as_os_str(), as_directory);
            if new.during(|| format!("making mount point {} in the container", next.display()))? {
                let file = root
                    .open(&next, OFlags::NOFOLLOW, ResolveFlags::empty())
                    .during(|| action(&next))?;
                made.push(Made {
                    place: root.place(&file)?,
                    is_directory: as_directory,
                    inode: identity(&file).during(|| action(&next))?.stx_ino,
                });
            }
        }
        here = next;
    }
    let file = open(&here, OFlags::empty()).during(|| action(&here))?;
    let place = root.free_place(&file, destination)?;
    if place.parent().is_none() {
        let destination = destination.display();
        return Err(AgentError::Invalid(format!(
            "destination {destination}: it leads to the container's root"
        )));
    }
    let mode = identity(&file).during(|| action(&here))?.stx_mode;
    let is_directory = FileType::from_raw_mode(mode.into()) == FileType::Directory;
    Ok((file, place, is_directory))
}

/// Makes one part of a mount point. Whether it did: somebody else may have, or a link whose end is missing is there.
fn make(parent: &OwnedFd, name: &std::ffi::OsStr, directory: bool) -> rustix::io::Result<bool> {
    let done = if directory {
        mkdirat(parent, name, Mode::from_raw_mode(0o755))
    } else {
        mknodat(parent, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
    };
    match done {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the mount with this number off `place`, which is without links. What is gone already counts as done.
pub(super) fn unmount(root: &Root<'_>, id: u64, place: &Path) -> Result<(), Unmounting> {
    let action = || format!("unmounting {} of the container", place.display());
    let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
        return Err(AgentError::Invalid(format!("{}: it is the container's root", place.display())).into());
    };
    let open = |path: &Path, flags| root.open(path, flags, ResolveFlags::NO_SYMLINKS);
    let on_top = match open(place, OFlags::empty()) {
        Ok(file) => identity(&file).during(action)?.stx_mnt_id,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error).during(action).map_err(Unmounting::Failed),
    };
    if on_top != id {
        return Err(AgentError::Busy {
            what: format!("mount {} of the container", place.display()),
            holder: "something else is mounted over it".into(),
        }
        .into());
    }
    let parent = open(parent, OFlags::DIRECTORY).during(action)?;
    fchdir(&parent).during(action)?;
    match unmount_at(name, UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(Errno::BUSY) => Err(Unmounting::Busy(place.to_owned())),
        Err(error) => Err(error).during(action).map_err(Unmounting::Failed),
    }
}

/// Removes what was made for a mount, unless the container uses it: whatever has come into it stays.
pub(super) fn remove(root: &Root<'_>, made: &[Made]) {
    for made in made.iter().rev() {
        if let Err(error) = made.remove(root) {
            tracing::info!(%error, place = %made.place.display(), "a mount point stays in the container");
        }
    }
}

impl Made {
    fn remove(&self, root: &Root<'_>) -> io::Result<()> {
        let (Some(parent), Some(name)) = (self.place.parent(), self.place.file_name()) else {
            return Ok(());
        };
        let open = |path: &Path, flags| root.open(path, flags, ResolveFlags::NO_SYMLINKS);
        let file = open(&self.place, OFlags::empty())?;
        let found = identity(&file)?;
        if found.stx_ino != self.inode || !self.is_directory && found.stx_size > 0 {
            return Err(io::Error::other("the container has replaced it"));
        }
        drop(file);
        let parent = open(parent, OFlags::DIRECTORY)?;
        let flags = if self.is_directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        Ok(unlinkat(&parent, name, flags)?)
    }
}
