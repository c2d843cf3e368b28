//! One file, directory or link as an entry: what the system says of it.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use cofferdam_archive::{Entry, Kind, Segment, Time, Xattr};
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fgetxattr, flistxattr, fstat, fstatfs, major,
        minor, openat, readlinkat, seek, statat,
    },
    io::Errno,
};

use crate::{CopyError, error::During as _};

/// Most bytes of a file's list of attributes, and of one (Linux: XATTR_LIST_MAX, XATTR_SIZE_MAX).
const ATTRIBUTE_BYTES: usize = 64 << 10;
/// Most pieces of data between holes; a file with more is copied with its holes as zeros.
const MAX_SEGMENTS: usize = 60_000;
/// File systems whose files are the kernel's answers (`statfs(2)`): proc, sysfs, cgroup, cgroup2, devpts.
const KERNELS: [i64; 5] = [0x9fa0, 0x6265_6572, 0x27_e0eb, 0x6367_7270, 0x1cd1];

/// Something to be copied.
pub(crate) enum Source {
    /// A regular file with its data.
    File(File, Entry),
    /// A directory, and its names.
    Directory(OwnedFd, Entry, Vec<Vec<u8>>),
    /// All of it.
    Whole(Entry),
    /// A socket, of which there is nothing to copy.
    Socket,
}

/// The kind of file and device that a path is on.
pub(crate) fn look(parent: impl AsFd, name: &[u8], path: &[u8]) -> Result<Stat, CopyError> {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).during("looking at", path)
}

/// Opens and describes `name` of `parent`, which is called `path` in the archive.
pub(crate) fn open(parent: &OwnedFd, name: &[u8], path: Vec<u8>) -> Result<Source, CopyError> {
    let found = look(parent, name, &path)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let kind = match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => {
            let opened = openat(parent, name, flags, Mode::empty()).during("opening", &path)?;
            return file(opened.into(), path);
        }
        FileType::Directory => {
            let opened =
                openat(parent, name, flags | OFlags::DIRECTORY, Mode::empty()).during("opening", &path)?;
            return directory(opened, path);
        }
        FileType::Symlink => Kind::Symlink {
            target: readlinkat(parent, name, Vec::new())
                .during("reading the link", &path)?
                .into_bytes(),
        },
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::CharacterDevice {
            major: major(found.st_rdev),
            minor: minor(found.st_rdev),
        },
        FileType::BlockDevice => Kind::BlockDevice {
            major: major(found.st_rdev),
            minor: minor(found.st_rdev),
        },
        _ => return Ok(Source::Socket),
    };
    Ok(Source::Whole(entry(path, kind, &found, Vec::new())))
}

/// An open regular file; what was opened decides, not what was there before.
pub(crate) fn file(file: File, path: Vec<u8>) -> Result<Source, CopyError> {
    let found = fstat(&file).during("looking at", &path)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(CopyError::refused(
            &path,
            "it became something else while it was copied",
        ));
    }
    let size = u64::try_from(found.st_size).unwrap_or_default();
    let is_sparse = u64::try_from(found.st_blocks)
        .unwrap_or_default()
        .saturating_mul(512)
        < size;
    let kind = Kind::File {
        size,
        segments: if is_sparse { segments(&file, size) } else { None },
    };
    let xattrs = attributes(&file, &path)?;
    Ok(Source::File(file, entry(path, kind, &found, xattrs)))
}

/// An open directory.
pub(crate) fn directory(opened: OwnedFd, path: Vec<u8>) -> Result<Source, CopyError> {
    let found = fstat(&opened).during("looking at", &path)?;
    let xattrs = attributes(&opened, &path)?;
    let mut names = Vec::new();
    for name in Dir::read_from(&opened).during("reading", &path)? {
        let name = name.during("reading", &path)?;
        let name = name.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    // The same directory always gives the same archive.
    names.sort_unstable();
    let entry = entry(path, Kind::Directory, &found, xattrs);
    Ok(Source::Directory(opened, entry, names))
}

/// Whether a directory is one of the kernel's own file systems.
pub(crate) fn is_kernels(directory: &OwnedFd) -> bool {
    fstatfs(directory).is_ok_and(|found| KERNELS.contains(&found.f_type))
}

fn entry(path: Vec<u8>, kind: Kind, found: &Stat, xattrs: Vec<Xattr>) -> Entry {
    Entry {
        path,
        kind,
        mode: found.st_mode & 0o7777,
        uid: found.st_uid,
        gid: found.st_gid,
        mtime: Time {
            seconds: found.st_mtime,
            nanoseconds: u32::try_from(found.st_mtime_nsec).unwrap_or_default(),
        },
        xattrs,
    }
}

/// Where a file's data is, if the file system knows.
fn segments(file: &File, size: u64) -> Option<Vec<Segment>> {
    let mut segments = Vec::new();
    let mut end = 0;
    loop {
        let offset = match seek(file, SeekFrom::Data(end)) {
            Ok(offset) if offset < size => offset,
            // The rest is a hole.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        end = seek(file, SeekFrom::Hole(offset)).ok()?.min(size);
        if segments.len() == MAX_SEGMENTS || end <= offset {
            return None;
        }
        segments.push(Segment {
            offset,
            length: end - offset,
        });
    }
    Some(segments)
}

/// A file's own attributes and its capabilities: what another file system can have too.
fn attributes(file: impl AsFd, path: &[u8]) -> Result<Vec<Xattr>, CopyError> {
    let file = file.as_fd();
    // Most files have none, or few.
    let mut few = [0; 1024];
    let list = match flistxattr(file, &mut few[..]) {
        Ok(length) => few[..length].to_vec(),
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {
            let mut list = vec![0; ATTRIBUTE_BYTES];
            let length = flistxattr(file, &mut list[..]).during("listing the attributes of", path)?;
            list.truncate(length);
            list
        }
        Err(error) => return Err(error).during("listing the attributes of", path),
    };
    let mut xattrs = Vec::new();
    for name in list.split(|byte| *byte == 0) {
        if !name.starts_with(b"user.") && name != b"security.capability" {
            continue;
        }
        let mut value = vec![0; ATTRIBUTE_BYTES];
        match fgetxattr(file, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            // It has just gone.
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error).during("reading an attribute of", path),
        }
        xattrs.push(Xattr {
            name: name.to_vec(),
            value,
        });
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}
