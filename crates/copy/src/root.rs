//! Where paths start and end.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2},
    io::Errno,
};

use crate::{CopyError, error::During as _};

/// A root of paths.
#[derive(Debug)]
pub struct Root(Option<OwnedFd>);

impl Root {
    /// The caller's own: absolute paths start at its root, relative ones at its working directory.
    #[must_use]
    pub fn own() -> Self {
        Self(None)
    }

    /// A directory as which paths see `/`: no link and no `..` leads out of it.
    ///
    /// # Errors
    /// The system's.
    pub fn inside(directory: &Path) -> Result<Self, CopyError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let name = directory.as_os_str().as_encoded_bytes();
        let opened = open(directory, flags, Mode::empty()).during("opening", name)?;
        Ok(Self::at(opened))
    }

    /// The same, opened already.
    #[must_use]
    pub fn at(directory: OwnedFd) -> Self {
        Self(Some(directory))
    }

    /// Whether it is a directory in which paths end.
    pub(crate) fn is_inside(&self) -> bool {
        self.0.is_some()
    }

    /// Opens what is there; nothing is ever made by this.
    pub(crate) fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = match self.0 {
            None => ResolveFlags::empty(),
            Some(_) => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        };
        let path = if path.is_empty() { b"." } else { path };
        openat2(
            self.start(),
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
    }

    fn start(&self) -> BorrowedFd<'_> {
        self.0.as_ref().map_or(CWD, AsFd::as_fd)
    }
}

/// The last component of a path, unless it names a directory from inside: `/`, `.` and `..` have none.
pub(crate) fn base_name(path: &[u8]) -> Option<&[u8]> {
    let trimmed = without_slashes(path);
    let name = trimmed.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    (!matches!(name, b"" | b"." | b"..")).then_some(name)
}

/// Everything before the last component, and that.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let trimmed = without_slashes(path);
    match trimmed.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => trimmed.split_at(slash + 1),
        None => (b"", trimmed),
    }
}

/// Without those at its end.
pub(crate) fn without_slashes(path: &[u8]) -> &[u8] {
    let end = path
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |last| last + 1);
    &path[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_component_is_a_name_or_none() {
        for (path, name) in [
            (&b"/etc/hosts"[..], Some(&b"hosts"[..])),
            (b"etc//", Some(b"etc")),
            (b"a", Some(b"a")),
            (b"/", None),
            (b"", None),
            (b"/etc/.", None),
            (b"./", None),
            (b"a/..", None),
        ] {
            assert_eq!(base_name(path), name, "{path:?}");
        }
        assert_eq!(split(b"/a/b//"), (&b"/a/"[..], &b"b"[..]));
        assert_eq!(split(b"/a"), (&b"/"[..], &b"a"[..]));
        assert_eq!(split(b"a"), (&b""[..], &b"a"[..]));
    }
}
