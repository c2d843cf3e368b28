//! Files become a tar stream.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write},
    os::fd::OwnedFd,
};

use cofferdam_archive::{Entry, Kind, Segment, Writer};
use rustix::fs::{FileType, OFlags, fstat};

use crate::{
    CopyError, Notes, Root,
    error::{During as _, shown},
    root::{base_name, split, without_slashes},
    source::{self, Source},
};

/// Bytes moved at a time.
const CHUNK_BYTES: usize = 128 << 10;

/// Writes what is at `path` as an archive, in which it has the path's last component as its name, or none (`./`) where the
/// path ends in `.`, `..` or is a root. A symbolic link at its end is itself copied, unless `follow` or a `/` after it says
/// otherwise. Of the kernel's own file systems below it (/proc, /sys) only the directories are copied.
///
/// # Errors
/// The system's; [`CopyError::Changed`] for a file that shrank, after which the stream is worth nothing, and, once all of
/// the archive is written, for the first that grew.
pub fn pack(
    root: &Root,
    path: &[u8],
    follow: bool,
    output: impl Write,
    notes: Notes<'_>,
) -> Result<(), CopyError> {
    let mut packer = Packer {
        writer: Writer::new(output),
        chunk: vec![0; CHUNK_BYTES],
        linked: HashMap::new(),
        grown: None,
    };
    let first = packer.first(root, path, follow)?;
    let mut levels = Vec::new();
    packer.add(first, None, &mut levels, notes)?;
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            levels.pop();
            continue;
        };
        let path = [level.path.as_slice(), b"/", &name].concat();
        let found = match source::open(&level.directory, &name, path.clone()) {
            // It was listed, and has gone.
            Err(CopyError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
            found => found?,
        };
        let at = Some((level.device, path));
        packer.add(found, at, &mut levels, notes)?;
    }
    packer
        .writer
        .finish()
        .during("sending", b"the end of the archive")?;
    match packer.grown {
        None => Ok(()),
        Some(path) => Err(CopyError::Changed {
            path,
            how: "grew, and is copied as it was at first,",
        }),
    }
}

struct Packer<W> {
    writer: Writer<W>,
    chunk: Vec<u8>,
    /// The first name of each file that has several.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// The first file that grew.
    grown: Option<String>,
}

/// A directory on the way to the current entry.
struct Level {
    directory: OwnedFd,
    path: Vec<u8>,
    names: std::vec::IntoIter<Vec<u8>>,
    device: u64,
}

impl<W: Write> Packer<W> {
    /// What is to be copied itself.
    fn first(&self, root: &Root, path: &[u8], follow: bool) -> Result<Source, CopyError> {
        let name = base_name(path).unwrap_or(b".").to_vec();
        let has_slash = without_slashes(path).len() < path.len();
        if base_name(path).is_some() && !follow && !has_slash {
            let (before, last) = split(path);
            let parent = root.open(before, OFlags::PATH | OFlags::DIRECTORY);
            let parent = parent.during("opening the directory that holds", path)?;
            return source::open(&parent, last, name).map_err(|error| named(error, path));
        }
        let opened = root.open(path, OFlags::PATH).during("opening", path)?;
        let found = fstat(&opened).during("looking at", path)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let opened = root
                    .open(path, flags | OFlags::DIRECTORY)
                    .during("opening", path)?;
                source::directory(opened, name)
            }
            FileType::RegularFile => {
                source::file(root.open(path, flags).during("opening", path)?.into(), name)
            }
            _ => Err(CopyError::refused(
                path,
                "a device, pipe or socket is not followed",
            )),
        }
    }

    /// Adds one source; a directory becomes the next level.
    fn add(
        &mut self,
        source: Source,
        at: Option<(u64, Vec<u8>)>,
        levels: &mut Vec<Level>,
        notes: Notes<'_>,
    ) -> Result<(), CopyError> {
        match source {
            Source::Socket => {
                let path = at.map(|(_, path)| path).unwrap_or_default();
                notes(format!("{}: it is a socket, and left out", shown(&path)));
                Ok(())
            }
            Source::Whole(entry) => self.header(&entry),
            Source::File(file, entry) => self.file(file, entry),
            Source::Directory(directory, entry, names) => {
                self.header(&entry)?;
                let device = fstat(&directory).during("looking at", &entry.path)?.st_dev;
                let is_other = at.is_some_and(|(above, _)| above != device);
                if is_other && source::is_kernels(&directory) {
                    return Ok(());
                }
                levels.push(Level {
                    directory,
                    path: entry.path,
                    names: names.into_iter(),
                    device,
                });
                Ok(())
            }
        }
    }

    fn header(&mut self, entry: &Entry) -> Result<(), CopyError> {
        self.writer.entry(entry).during("sending", &entry.path)
    }

    fn file(&mut self, file: File, mut entry: Entry) -> Result<(), CopyError> {
        let found = fstat(&file).during("looking at", &entry.path)?;
        if found.st_nlink > 1 {
            let identity = (found.st_dev, found.st_ino);
            if let Some(first) = self.linked.get(&identity) {
                entry.kind = Kind::HardLink {
                    target: first.clone(),
                };
                entry.xattrs.clear();
                return self.header(&entry);
            }
            self.linked.insert(identity, entry.path.clone());
        }
        self.header(&entry)?;
        let Kind::File { size, segments } = &entry.kind else {
            return Ok(());
        };
        match segments {
            None => self.data(&file, *size, &entry.path)?,
            Some(segments) => {
                for Segment { offset, length } in segments {
                    (&file)
                        .seek(SeekFrom::Start(*offset))
                        .during("reading", &entry.path)?;
                    self.data(&file, *length, &entry.path)?;
                }
                (&file)
                    .seek(SeekFrom::Start(*size))
                    .during("reading", &entry.path)?;
            }
        }
        let after = (&file)
            .read(&mut self.chunk[..1])
            .during("reading", &entry.path)?;
        if after > 0 && self.grown.is_none() {
            self.grown = Some(shown(&entry.path));
        }
        Ok(())
    }

    fn data(&mut self, mut file: &File, mut length: u64, path: &[u8]) -> Result<(), CopyError> {
        while length > 0 {
            let most = usize::try_from(length)
                .unwrap_or(usize::MAX)
                .min(self.chunk.len());
            let read = match file.read(&mut self.chunk[..most]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.during("reading", path)?,
            };
            if read == 0 {
                let path = shown(path);
                return Err(CopyError::Changed { path, how: "shrank" });
            }
            self.writer.data(&self.chunk[..read]).during("sending", path)?;
            length -= read as u64;
        }
        Ok(())
    }
}

/// With the path that was asked for, not only its last component.
fn named(error: CopyError, path: &[u8]) -> CopyError {
    match error {
        CopyError::Io { source, .. } => CopyError::Io {
            action: format!("copying {}", shown(path)),
            source,
        },
        error => error,
    }
}
