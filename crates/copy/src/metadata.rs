//! Owners, modes, times and attributes: what of them is an archive's, and what is not.

use std::os::fd::AsFd;

use cofferdam_archive::{Entry, Time};
use rustix::{
    fs::{
        AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chownat, fchmod, fchown,
        fsetxattr, futimens, utimensat,
    },
    io::Errno,
};

use crate::{CopyError, Notes, error::During as _, error::shown};

/// Whose word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Owners; the caller where there are none.
    owner: Option<Owner>,
    /// Whether set-ID bits of modes and attributes beside `user.*` are made.
    trusted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Root,
    Archive,
}

impl Policy {
    /// Everything is the caller's, and nothing in the archive gives anybody rights.
    #[must_use]
    pub fn caller() -> Self {
        Self {
            owner: None,
            trusted: false,
        }
    }

    /// Everything is root's; a set-ID bit stays where it was root's before.
    #[must_use]
    pub fn root() -> Self {
        Self {
            owner: Some(Owner::Root),
            trusted: true,
        }
    }

    /// Everything is as in the archive.
    #[must_use]
    pub fn keep() -> Self {
        Self {
            owner: Some(Owner::Archive),
            trusted: true,
        }
    }

    /// Whether devices are made.
    pub(crate) fn devices(&self) -> bool {
        self.owner == Some(Owner::Archive)
    }

    fn owner(&self, entry: &Entry) -> Option<(Uid, Gid)> {
        match self.owner? {
            Owner::Root => Some((Uid::ROOT, Gid::ROOT)),
            Owner::Archive => Some((Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))),
        }
    }

    fn mode(&self, entry: &Entry) -> Mode {
        // With another owner a set-ID bit would give the rights of somebody who never gave them.
        let kept = |id: u32| match self.owner {
            Some(Owner::Archive) => true,
            Some(Owner::Root) => id == 0,
            None => false,
        };
        let mut mask = 0o1777;
        if kept(entry.uid) {
            mask |= 0o4000;
        }
        if kept(entry.gid) {
            mask |= 0o2000;
        }
        Mode::from_raw_mode(entry.mode & mask)
    }

    /// Gives an open file or directory what its entry says.
    pub(crate) fn apply(&self, file: impl AsFd, entry: &Entry, notes: Notes<'_>) -> Result<(), CopyError> {
        let path = entry.path.as_slice();
        let file = file.as_fd();
        if let Some((uid, gid)) = self.owner(entry) {
            fchown(file, Some(uid), Some(gid)).during("giving an owner to", path)?;
        }
        // After the owner: its change takes set-ID bits and capabilities away.
        fchmod(file, self.mode(entry)).during("setting the mode of", path)?;
        let wanted = entry
            .xattrs
            .iter()
            .filter(|xattr| self.trusted || xattr.name.starts_with(b"user."));
        for xattr in wanted {
            let name = xattr.name.as_slice();
            match fsetxattr(file, name, &xattr.value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(error @ (Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::NOSPC)) => notes(
                    format!("{}: without its attribute {}: {error}", shown(path), shown(name)),
                ),
                Err(error) => return Err(error).during("setting an attribute of", path),
            }
        }
        futimens(file, &times(entry.mtime)).during("setting the time of", path)
    }

    /// The same for a name that is not followed; without a mode and attributes.
    pub(crate) fn apply_to_name(
        &self,
        directory: impl AsFd,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), CopyError> {
        let directory = directory.as_fd();
        if let Some((uid, gid)) = self.owner(entry) {
            chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .during("giving an owner to", &entry.path)?;
        }
        utimensat(directory, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .during("setting the time of", &entry.path)
    }

    /// The mode of a node that is made with it.
    pub(crate) fn node_mode(&self, entry: &Entry) -> Mode {
        self.mode(entry)
    }
}

fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: mtime.nanoseconds.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_archive::Kind;

    use super::*;

    #[test]
    fn set_id_bits_stay_with_those_who_gave_them() {
        let entry = |uid, gid| Entry {
            path: b"f".to_vec(),
            kind: Kind::Fifo,
            mode: 0o7755,
            uid,
            gid,
            mtime: Time::default(),
            xattrs: Vec::new(),
        };
        for (policy, uid, gid, mode) in [
            (Policy::caller(), 0, 0, 0o1755),
            (Policy::root(), 0, 0, 0o7755),
            (Policy::root(), 7, 0, 0o3755),
            (Policy::root(), 0, 7, 0o5755),
            (Policy::keep(), 7, 7, 0o7755),
        ] {
            assert_eq!(policy.mode(&entry(uid, gid)).as_raw_mode(), mode, "{policy:?}");
        }
    }
}
