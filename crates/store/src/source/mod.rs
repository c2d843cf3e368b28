//! Images in files: OCI layouts, as directories or archives, and what `docker save` writes.

mod docker;
mod index;
mod layout;

use std::{fmt, path::Path};

use crate::{Documents, LayerSource, Platform, StoreError};

use self::index::ArchiveIndex;

/// An image in a file or directory.
pub struct LocalImage {
    /// The name it has there.
    pub name: Option<String>,
    /// Its documents.
    pub documents: Documents,
    /// Its layers.
    pub source: Box<dyn LayerSource>,
}

impl fmt::Debug for LocalImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalImage")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Opens an OCI image layout (a directory or an archive) or a docker archive, compressed or not. Where it holds several
/// images, `name` says which.
///
/// # Errors
/// It is neither, it is damaged, or it is not said which image is meant.
pub fn open_local(path: &Path, name: Option<&str>, platform: &Platform) -> Result<LocalImage, StoreError> {
    if path.is_dir() {
        return layout::open(path, layout::Files::Directory(path.to_owned()), name, platform);
    }
    let index = ArchiveIndex::of(path)?;
    if index.contains("index.json") {
        layout::open(path, layout::Files::Archive(index), name, platform)
    } else if index.contains("manifest.json") {
        docker::open(path, index, name, platform)
    } else {
        Err(StoreError::UnknownSource {
            path: path.to_owned(),
            reason: "it has neither index.json nor manifest.json".to_owned(),
        })
    }
}
