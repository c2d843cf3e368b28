//! A directory that an archive is unpacked into: what is made in it, and nothing outside of it.

use std::{fs::File, os::fd::OwnedFd};

use cofferdam_archive::Entry;
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat,
        unlinkat,
    },
    io::Errno,
};

use crate::{CopyError, Notes, Policy, error::During as _, place::Place, root::split};

/// What files and directories have until they are complete: nobody else looks into them.
const OWN: Mode = Mode::RUSR.union(Mode::WUSR);
const OWN_DIRECTORY: Mode = Mode::RWXU;
/// Directories that an archive has files in, and does not have.
const PARENT: Mode = Mode::from_raw_mode(0o755);

/// See the module.
pub(crate) struct Tree<'a> {
    place: Place,
    policy: &'a Policy,
    /// The directory of the last entry.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories made that the current entry may still be in, outermost first.
    open: Vec<(Vec<u8>, Entry)>,
}

/// A file that is being written.
pub(crate) struct New {
    pub(crate) file: File,
    /// Whether it is one that was there, which could only be written over: something is mounted there.
    pub(crate) in_place: bool,
}

impl<'a> Tree<'a> {
    pub(crate) fn new(place: Place, policy: &'a Policy) -> Self {
        Self {
            place,
            policy,
            parent: None,
            open: Vec::new(),
        }
    }

    /// The path of an entry; directories that it is not in are completed.
    pub(crate) fn enter(&mut self, entry: &Entry, notes: Notes<'_>) -> Result<Vec<u8>, CopyError> {
        let path = self.place.path(&entry.path)?;
        while let Some((open, _)) = self.open.last()
            && !is_in(&path, open)
        {
            self.complete_last(notes)?;
        }
        Ok(path)
    }

    /// Completes all directories.
    pub(crate) fn complete(mut self, notes: Notes<'_>) -> Result<(), CopyError> {
        while !self.open.is_empty() {
            self.complete_last(notes)?;
        }
        Ok(())
    }

    /// Only now: before, it had to be written to, which changes its time.
    fn complete_last(&mut self, notes: Notes<'_>) -> Result<(), CopyError> {
        let Some((path, entry)) = self.open.pop() else {
            return Ok(());
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let directory = self.at(&path, flags).during("opening", &entry.path)?;
        self.policy.apply(&directory, &entry, notes)
    }

    /// A directory; one that is there stays as it is.
    pub(crate) fn directory(&mut self, path: &[u8], entry: Entry) -> Result<(), CopyError> {
        if path.is_empty() {
            return Ok(());
        }
        let (parent, name) = self.parent_of(path)?;
        match mkdirat(parent, name, OWN_DIRECTORY) {
            Ok(()) => {
                self.open.push((path.to_vec(), entry));
                Ok(())
            }
            Err(Errno::EXIST) => match kind(parent, name).during("looking at", &entry.path)? {
                FileType::Directory => Ok(()),
                _ => Err(CopyError::refused(
                    &entry.path,
                    "a directory cannot take the place of what is none",
                )),
            },
            Err(error) => Err(error).during("making", &entry.path),
        }
    }

    /// An empty file.
    pub(crate) fn file(&mut self, path: &[u8], entry: &Entry) -> Result<New, CopyError> {
        let (parent, name) = self.parent_of(path)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match free(parent, name, entry) {
            Ok(()) => {}
            Err(CopyError::Io { source, .. })
                if source.raw_os_error() == Some(Errno::BUSY.raw_os_error())
                    && kind(parent, name) == Ok(FileType::RegularFile) =>
            {
                let opened = openat(parent, name, flags | OFlags::TRUNC, Mode::empty());
                return Ok(New {
                    file: opened.during("opening", &entry.path)?.into(),
                    in_place: true,
                });
            }
            Err(error) => return Err(error),
        }
        let opened = openat(parent, name, flags | OFlags::CREATE | OFlags::EXCL, OWN);
        Ok(New {
            file: opened.during("making", &entry.path)?.into(),
            in_place: false,
        })
    }

    /// Takes an incomplete file away again.
    pub(crate) fn discard(&mut self, path: &[u8]) {
        if let Ok((parent, name)) = self.parent_of(path) {
            let _ = unlinkat(parent, name, AtFlags::empty());
        }
    }

    pub(crate) fn symlink(&mut self, path: &[u8], entry: &Entry, target: &[u8]) -> Result<(), CopyError> {
        let policy = self.policy;
        let (parent, name) = self.parent_of(path)?;
        free(parent, name, entry)?;
        symlinkat(target, parent, name).during("making the link", &entry.path)?;
        policy.apply_to_name(parent, name, entry)
    }

    pub(crate) fn hard_link(&mut self, path: &[u8], entry: &Entry, target: &[u8]) -> Result<(), CopyError> {
        let of = self.place.path(target)?;
        if of == path {
            return Ok(());
        }
        let (before, target_name) = split(&of);
        let target_parent = self.at(before, OFlags::PATH | OFlags::DIRECTORY);
        let target_parent = target_parent.during("opening the directory that holds", target)?;
        let (parent, name) = self.parent_of(path)?;
        free(parent, name, entry)?;
        linkat(&target_parent, target_name, parent, name, AtFlags::empty()).during("linking", &entry.path)
    }

    /// A device or a pipe.
    pub(crate) fn node(
        &mut self,
        path: &[u8],
        entry: &Entry,
        kind: FileType,
        device: u64,
    ) -> Result<(), CopyError> {
        let policy = self.policy;
        let (parent, name) = self.parent_of(path)?;
        free(parent, name, entry)?;
        mknodat(parent, name, kind, policy.node_mode(entry), device).during("making", &entry.path)?;
        policy.apply_to_name(parent, name, entry)
    }

    /// The directory a path is in, made if the archive does not have it, and its last component.
    fn parent_of<'p>(&mut self, path: &'p [u8]) -> Result<(&OwnedFd, &'p [u8]), CopyError> {
        let (before, name) = split(path);
        if name.is_empty() {
            return Err(CopyError::refused(path, "it has no name"));
        }
        if self.parent.as_ref().is_none_or(|(open, _)| open != before) {
            let opened = match self.at(before, OFlags::PATH | OFlags::DIRECTORY) {
                Err(Errno::NOENT) => self.make(before)?,
                opened => opened.during("opening", before)?,
            };
            self.parent = None;
            return Ok((&self.parent.insert((before.to_vec(), opened)).1, name));
        }
        match &self.parent {
            Some((_, opened)) => Ok((opened, name)),
            None => Err(CopyError::refused(path, "it has no directory")),
        }
    }

    fn make(&self, path: &[u8]) -> Result<OwnedFd, CopyError> {
        let as_place = OFlags::PATH | OFlags::DIRECTORY;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let mut parent = self.at(b"", as_place).during("opening", path)?;
        for (end, _) in ends {
            let part = &path[..end];
            parent = match self.at(part, as_place) {
                Err(Errno::NOENT) => {
                    mkdirat(&parent, split(part).1, PARENT).during("making", part)?;
                    self.at(part, as_place).during("opening", part)?
                }
                opened => opened.during("opening", part)?,
            };
        }
        Ok(parent)
    }

    fn at(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = flags | OFlags::CLOEXEC;
        openat2(
            &self.place.directory,
            path,
            flags,
            Mode::empty(),
            self.place.resolve,
        )
    }
}

/// Takes away what is where something new is to be; a directory stays.
fn free(parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), CopyError> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(CopyError::refused(
            &entry.path,
            "only a directory can take the place of a directory",
        )),
        Err(error) => Err(error).during("replacing", &entry.path),
    }
}

fn kind(parent: &OwnedFd, name: &[u8]) -> Result<FileType, Errno> {
    let found = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode))
}

fn is_in(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.starts_with(b"/"))
}
