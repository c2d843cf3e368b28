//! The store's directory.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use cofferdam_archive::{Digest, Limits};

use crate::{StoreError, error::At, lock::Lock};

/// Bytes of a document that is read: image indexes, manifests and configurations have a few KiB.
pub(crate) const DOCUMENT_BYTES: u64 = 4 << 20;

/// Bytes kept for the day when the disk is full: the list of names has to be written to take one away.
const RESERVE_BYTES: usize = 64 << 10;

/// A store of images.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    limits: Limits,
}

impl Store {
    /// The store in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// The system's, where it cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self {
            root: root.into(),
            limits: Limits::default(),
        };
        for dir in [store.blobs(), store.layers(), store.ingests()] {
            fs::create_dir_all(&dir).at("make", &dir)?;
        }
        Ok(store)
    }

    /// The same, but a layer's archive is at most so many bytes, decompressed: what stops a bomb.
    #[must_use]
    pub fn with_largest_layer(mut self, bytes: u64) -> Self {
        self.limits.archive_bytes = bytes;
        self
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn ingests(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn references_file(&self) -> PathBuf {
        self.root.join("references.json")
    }

    /// Held shared while something is added, alone while something is thrown away.
    pub(crate) fn content_lock(&self) -> PathBuf {
        self.root.join("content.lock")
    }

    /// Held while the references are changed.
    pub(crate) fn references_lock(&self) -> PathBuf {
        self.root.join("references.lock")
    }

    /// A document, checked against its digest.
    pub(crate) fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.blob(digest);
        let bytes = read_bounded(&path)?;
        StoreError::check_digest(&path.display(), *digest, Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Keeps a document.
    pub(crate) fn write_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        // One that is there and spoilt is mended.
        if self.read_blob(&digest).is_err() {
            self.write_atomically(&self.blob(&digest), bytes)?;
        }
        Ok(digest)
    }

    /// Writes a file under another name, and gives it its own when it is on the disk.
    pub(crate) fn write_atomically(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let ingests = self.ingests();
        let mut file = tempfile::NamedTempFile::new_in(&ingests).at("make a file in", &ingests)?;
        file.write_all(bytes)
            .and_then(|()| file.as_file().sync_all())
            .at("write", path)?;
        file.persist(path).map_err(|error| error.error).at("name", path)?;
        sync_directory_of(path)
    }

    fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    /// Takes the reserve, if it is not there. Where there is no room for it, there is none for images either.
    pub(crate) fn keep_reserve(&self) {
        let path = self.reserve();
        let there = fs::metadata(&path).map_or(0, |facts| facts.len());
        if there != RESERVE_BYTES as u64 && fs::write(&path, [0; RESERVE_BYTES]).is_err() {
            // A part of it would only be in the way.
            let _ = fs::remove_file(&path);
        }
    }

    /// Gives up the reserve. Gives whether there was one.
    pub(crate) fn spend_reserve(&self) -> bool {
        fs::remove_file(self.reserve()).is_ok()
    }

    /// Throws away what killed processes left half-made, if nobody is making anything.
    pub(crate) fn sweep(&self) -> Result<(), StoreError> {
        let Some(_alone) = Lock::try_exclusive(&self.content_lock())? else {
            return Ok(());
        };
        let ingests = self.ingests();
        for entry in fs::read_dir(&ingests).at("read", &ingests)? {
            let path = entry.at("read", &ingests)?.path();
            remove_any(&path)?;
        }
        Ok(())
    }
}

/// A document's bytes, if there are not too many.
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, StoreError> {
    let file = File::open(path).at("open", path)?;
    let mut bytes = Vec::new();
    file.take(DOCUMENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .at("read", path)?;
    check_size(&path.display(), bytes.len() as u64)?;
    Ok(bytes)
}

/// Refuses a document that is too large.
pub(crate) fn check_size(what: &dyn std::fmt::Display, bytes: u64) -> Result<(), StoreError> {
    if bytes > DOCUMENT_BYTES {
        return Err(StoreError::DocumentSize {
            what: what.to_string(),
            bytes,
            most: DOCUMENT_BYTES,
        });
    }
    Ok(())
}

/// Puts a directory's names on the disk.
pub(crate) fn sync_directory_of(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .at("sync", directory)
}

/// Removes a file or a directory with all that is in it; one that is not there is removed already.
pub(crate) fn remove_any(path: &Path) -> Result<(), StoreError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(facts) if facts.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.at("remove", path),
    }
}
