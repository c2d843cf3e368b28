//! Where things go: docker's rules for a copy's destination.
//!
//! | | nothing there | a directory | something else |
//! |---|---|---|---|
//! | a file | is called so; refused with a `/` at the end | goes into it | takes its place |
//! | a directory | is called so | goes into it | refused |
//! | a directory's contents (`/.`) | in a new directory of that name | go into it | refused |
//! | an archive | refused | is unpacked in it | refused |
//!
//! The directory that something is made in has to be there. Symbolic links at the destination are followed.

use std::os::fd::OwnedFd;

use cofferdam_archive::{Entry, Kind};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat, readlinkat, statat},
    io::Errno,
};

use crate::{
    CopyError, Root,
    error::During as _,
    root::{base_name, split, without_slashes},
};

/// Symbolic links followed at the end of a path (Linux: MAXSYMLINKS).
const MAX_LINKS: usize = 40;

/// Where an archive is to go, and what it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    path: Vec<u8>,
    from: From,
}

/// What the archive was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    /// Something of this name: everything in the archive is it, or below it.
    Named(Vec<u8>),
    /// What is in a directory.
    Contents,
    /// Whatever the user has put together.
    Archive,
}

impl Target {
    /// For an archive that [`pack()`](crate::pack()) made of `source`.
    #[must_use]
    pub fn new(path: &[u8], source: &[u8]) -> Self {
        let from = base_name(source).map_or(From::Contents, |name| From::Named(name.to_vec()));
        Self {
            path: path.to_vec(),
            from,
        }
    }

    /// For an archive of any kind.
    #[must_use]
    pub fn archive(path: &[u8]) -> Self {
        Self {
            path: path.to_vec(),
            from: From::Archive,
        }
    }

    /// Whether it needs no first entry to know where it goes.
    pub(crate) fn is_archive(&self) -> bool {
        self.from == From::Archive
    }

    /// The place, for an archive whose first entry this is.
    pub(crate) fn find(&self, root: &Root, first: Option<&Entry>) -> Result<Place, CopyError> {
        let refuse = |reason| Err(CopyError::refused(&self.path, reason));
        let is_directory = first.is_none_or(|entry| entry.kind == Kind::Directory);
        let top = match &self.from {
            From::Named(name) => Some(name.clone()),
            From::Contents | From::Archive => None,
        };
        let resolve = ResolveFlags::NO_MAGICLINKS
            | match &self.from {
                From::Archive if root.is_inside() && is_root(&self.path) => ResolveFlags::IN_ROOT,
                From::Archive if root.is_inside() => ResolveFlags::BENEATH,
                _ => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            };
        let (directory, name) = match look(root, &self.path)? {
            Found::Directory(directory) => (directory, None),
            _ if self.is_archive() => return refuse("an archive is unpacked in a directory that is there"),
            Found::Missing { slash: true, .. } if !is_directory => {
                return refuse("there is no such directory");
            }
            Found::Missing { parent, name, .. } => (parent, Some(name)),
            Found::Other { .. } if is_directory => {
                return refuse("a directory cannot take the place of what is none");
            }
            Found::Other { parent, name } => (parent, Some(name)),
        };
        Ok(Place {
            directory,
            resolve,
            top,
            name,
        })
    }
}

/// A directory that an archive's entries go into, and how their names become names in it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) directory: OwnedFd,
    pub(crate) resolve: ResolveFlags,
    /// The first component that every entry must have.
    top: Option<Vec<u8>>,
    /// What it is called there; without a first component of its own, what everything goes below.
    name: Option<Vec<u8>>,
}

impl Place {
    /// The path of an entry in the directory: without `.`, `..` and `//`, and empty for the directory itself.
    pub(crate) fn path(&self, entry: &[u8]) -> Result<Vec<u8>, CopyError> {
        let mut parts: Vec<&[u8]> = entry
            .split(|byte| *byte == b'/')
            .filter(|part| !matches!(*part, b"" | b"."))
            .collect();
        if parts.contains(&&b".."[..]) {
            return Err(CopyError::refused(entry, "it climbs out of the archive with .."));
        }
        match (&self.top, parts.first_mut()) {
            (Some(top), Some(first)) if *top == **first => *first = self.name.as_deref().unwrap_or(top),
            (Some(_), _) => {
                return Err(CopyError::refused(
                    entry,
                    "the archive holds what was not asked for",
                ));
            }
            (None, _) => parts.splice(0..0, self.name.as_deref()).for_each(drop),
        }
        Ok(parts.join(&b'/'))
    }
}

/// What is at a path.
enum Found {
    Directory(OwnedFd),
    Other {
        parent: OwnedFd,
        name: Vec<u8>,
    },
    Missing {
        parent: OwnedFd,
        name: Vec<u8>,
        slash: bool,
    },
}

/// Looks at `path`, through symbolic links at its end too, whether or not they lead to something.
fn look(root: &Root, path: &[u8]) -> Result<Found, CopyError> {
    let as_place = OFlags::PATH | OFlags::DIRECTORY;
    let mut here = path.to_vec();
    for _ in 0..=MAX_LINKS {
        let Some(name) = base_name(&here) else {
            let opened = root.open(&here, as_place).during("opening", path)?;
            return Ok(Found::Directory(opened));
        };
        let (name, slash) = (name.to_vec(), without_slashes(&here).len() < here.len());
        let before = split(&here).0.to_vec();
        let parent = root
            .open(&before, as_place)
            .during("opening the directory that holds", path)?;
        let found = match statat(&parent, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Found::Missing { parent, name, slash }),
            found => found.during("looking at", path)?,
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Symlink => {
                let link =
                    readlinkat(&parent, name.as_slice(), Vec::new()).during("reading the link", path)?;
                let link = link.into_bytes();
                here = match link.starts_with(b"/") {
                    true => link,
                    false => [before, link].concat(),
                };
                if slash {
                    here.push(b'/');
                }
            }
            FileType::Directory => {
                let flags = as_place | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let opened =
                    openat(&parent, name.as_slice(), flags, Mode::empty()).during("opening", path)?;
                return Ok(Found::Directory(opened));
            }
            _ if slash => return Err(CopyError::refused(path, "it is no directory")),
            _ => return Ok(Found::Other { parent, name }),
        }
    }
    Err(Errno::LOOP).during("following", path)
}

fn is_root(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/')
        .all(|part| matches!(part, b"" | b"."))
}
