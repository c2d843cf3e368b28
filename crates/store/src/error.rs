//! What can go wrong with images.

use std::{io, path::PathBuf};

use cofferdam_archive::{ArchiveError, Digest};
use cofferdam_layer::LayerError;

use crate::BadReference;

/// Why something could not be done with an image.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused something with a file of the store.
    #[error("could not {action} {path}: {source}")]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A name that is none.
    #[error(transparent)]
    Reference(#[from] BadReference),
    /// No image of that name.
    #[error("no image `{0}` in the store; `cofferdam image list` shows those there are")]
    NotFound(String),
    /// A part of a digest that several images' digests start with.
    #[error("`{0}` is the start of several images' digests")]
    Ambiguous(String),
    /// A document that is not what its digest says.
    #[error("{what} has the digest {found}; {expected} was asked for")]
    WrongDigest {
        /// Which document or layer.
        what: String,
        /// What was promised.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A document that cannot be read.
    #[error("{what} is no {kind}: {reason}")]
    Document {
        /// Which document.
        what: String,
        /// What it should be.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A document larger than any that is meant well.
    #[error("{what} has {bytes} bytes; documents have at most {most}")]
    DocumentSize {
        /// Which document.
        what: String,
        /// Its size.
        bytes: u64,
        /// The most that is read.
        most: u64,
    },
    /// An image for other machines only.
    #[error("the image is for {available}; wanted is {wanted}, which `--platform` changes")]
    Platform {
        /// What is wanted.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// A document could not be fetched.
    #[error("{what}: {source}")]
    Fetch {
        /// Which document.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A layer could not be read.
    #[error("layer {number} of {count} ({digest}): {source}")]
    Read {
        /// Its number, from 1, the base first.
        number: usize,
        /// How many there are.
        count: usize,
        /// Its digest in the manifest.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer's archive, or what is made of it.
    #[error("layer {number} of {count} ({digest}): {source}")]
    Layer {
        /// Its number, from 1, the base first.
        number: usize,
        /// How many there are.
        count: usize,
        /// Its digest in the manifest.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<LayerError>,
    },
    /// An archive of images that cannot be read.
    #[error("{path}: {source}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<ArchiveError>,
    },
    /// Neither an image layout nor an archive of one.
    #[error("{path} is neither an OCI image layout nor what `docker save` writes: {reason}")]
    UnknownSource {
        /// The path.
        path: PathBuf,
        /// What was missing.
        reason: String,
    },
    /// Which of several images is meant is not said.
    #[error("{path} holds several images ({names}): say which as `--image NAME`")]
    SeveralImages {
        /// The path.
        path: PathBuf,
        /// Their names.
        names: String,
    },
    /// Whoever asked stopped it.
    #[error("stopped")]
    Stopped,
}

impl StoreError {
    /// Compares a document or layer with its digest.
    ///
    /// # Errors
    /// [`StoreError::WrongDigest`].
    pub fn check_digest(what: &dyn std::fmt::Display, expected: Digest, found: Digest) -> Result<(), Self> {
        if expected == found {
            return Ok(());
        }
        Err(Self::WrongDigest {
            what: what.to_string(),
            expected,
            found,
        })
    }

    /// Whether there was no room on the disk.
    pub(crate) fn is_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::File { source, .. } if full.contains(&source.kind()))
    }
}

/// Adds the file and what was being done to an I/O error.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, StoreError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::File {
            action,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}
