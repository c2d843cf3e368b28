//! Where the files of an archive are.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use cofferdam_archive::{Archive, Compression, Input, InputOptions, Kind, Limits};

use crate::{StoreError, error::At, store::check_size};

/// Files of an archive of images: a few for each layer.
const ENTRIES: u64 = 100_000;
/// Links from file to file.
const LINKS: usize = 8;

/// An archive's files.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveIndex {
    path: PathBuf,
    file: Arc<File>,
    files: Arc<HashMap<String, Place>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Data { offset: u64, length: u64 },
    Link(String),
}

impl ArchiveIndex {
    /// Reads the archive once. One that is compressed is unpacked into a file without a name.
    pub(crate) fn of(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).at("open", path)?;
        let input =
            Input::new(file.try_clone().at("open", path)?, InputOptions::default()).at("read", path)?;
        let (file, input) = if input.compression() == Compression::None {
            (file, input)
        } else {
            let mut input = input;
            let mut plain = tempfile::tempfile().at("make a temporary file for", path)?;
            io::copy(&mut input, &mut plain).at("unpack", path)?;
            let again = plain.try_clone().at("open", path)?;
            let reader = At0 { file: again, at: 0 };
            (
                plain,
                Input::new(reader, InputOptions::default()).at("read", path)?,
            )
        };
        let limits = Limits {
            entries: ENTRIES,
            ..Limits::default()
        };
        let in_archive = |source| StoreError::Archive {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let mut archive = Archive::new(input, limits);
        let mut files = HashMap::new();
        while let Some(entry) = archive.next_entry().map_err(in_archive)? {
            let Ok(name) = String::from_utf8(entry.path) else {
                continue;
            };
            let place = match entry.kind {
                Kind::File { size, segments: None } => Place::Data {
                    offset: archive.position(),
                    length: size,
                },
                // A symbolic link's target starts in its directory, a hard link's at the root.
                Kind::Symlink { target } => {
                    let target = String::from_utf8_lossy(&target).into_owned();
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    Place::Link(normal(&format!("{directory}/{target}")))
                }
                Kind::HardLink { target } => Place::Link(normal(&String::from_utf8_lossy(&target))),
                _ => continue,
            };
            files.insert(normal(&name), place);
        }
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            files: Arc::new(files),
        })
    }

    /// Whether it has a file of that name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.place(name).is_some()
    }

    /// A file's size.
    pub(crate) fn length(&self, name: &str) -> Option<u64> {
        self.place(name).map(|(_, length)| length)
    }

    /// A file's bytes.
    pub(crate) fn open(&self, name: &str) -> io::Result<Slice> {
        let (at, left) = self.place(name).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{} has no file {}", self.path.display(), name.escape_debug()),
            )
        })?;
        Ok(Slice {
            file: Arc::clone(&self.file),
            at,
            left,
        })
    }

    /// A document's bytes.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let mut slice = self.open(name).at("read", &self.path)?;
        check_size(&name, slice.left)?;
        let mut bytes = Vec::new();
        slice.read_to_end(&mut bytes).at("read", &self.path)?;
        Ok(bytes)
    }

    fn place(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = normal(name);
        for _ in 0..LINKS {
            match self.files.get(&name)? {
                Place::Data { offset, length } => return Some((*offset, *length)),
                Place::Link(target) => name = target.clone(),
            }
        }
        None
    }
}

/// A path without `.`, `..` and empty parts.
fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A part of a file.
#[derive(Debug)]
pub(crate) struct Slice {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Slice {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let length = self.file.read_at(&mut bytes[..most], self.at)?;
        self.at += length as u64;
        self.left -= length as u64;
        Ok(length)
    }
}

/// A file from its start, wherever its own position is.
struct At0 {
    file: File,
    at: u64,
}

impl Read for At0 {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(bytes, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}
