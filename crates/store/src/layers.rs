//! Layers as disks.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use cofferdam_archive::Digest;
use cofferdam_layer::{Container, Filesystem, Options};
use serde::{Deserialize, Serialize};

use crate::{
    Store, StoreError,
    error::At,
    lock::Lock,
    store::{read_bounded, remove_any},
};

/// How layers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub struct Variant {
    /// EROFS in the place of ext4.
    pub erofs: bool,
    /// With a dm-verity tree.
    pub verity: bool,
}

impl Variant {
    const ALL: [Self; 4] = [
        Self {
            erofs: false,
            verity: false,
        },
        Self {
            erofs: false,
            verity: true,
        },
        Self {
            erofs: true,
            verity: false,
        },
        Self {
            erofs: true,
            verity: true,
        },
    ];

    pub(crate) fn options(self) -> Options {
        Options {
            filesystem: if self.erofs {
                Filesystem::Erofs
            } else {
                Filesystem::Ext4
            },
            container: Container::Vhd,
            verity: self.verity,
        }
    }

    fn of_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variant| variant.to_string() == text)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.erofs { "erofs" } else { "ext4" })?;
        f.write_str(if self.verity { "-verity" } else { "" })
    }
}

impl Serialize for Variant {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Variant {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::of_text(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no kind of layer")))
    }
}

/// What `layer.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LayerFacts {
    /// Entries of the archive.
    pub(crate) entries: u64,
    /// Attributes that Linux has no place for, and that were left out.
    #[serde(default)]
    pub(crate) ignored_xattrs: u64,
    /// Bytes of the archive.
    pub(crate) archive_bytes: u64,
    /// Bytes of the disk's file.
    pub(crate) file_bytes: u64,
    /// The verity tree's root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verity_root: Option<String>,
}

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLayer {
    /// The folder with its `layer.vhd`.
    pub folder: PathBuf,
    /// The digest of its archive.
    pub diff_id: Digest,
    /// Extended attributes that were left out: those of namespaces that Linux does not have.
    pub ignored_xattrs: u64,
    /// Bytes of the archive it was made of.
    pub archive_bytes: u64,
    /// Bytes of the disk's file.
    pub file_bytes: u64,
    /// The root hash of its dm-verity tree, in hexadecimal digits.
    pub verity_root: Option<String>,
}

/// Keeps layers from being thrown away while it lives.
#[derive(Debug)]
#[must_use]
pub struct Lease {
    _locks: Vec<Lock>,
}

impl Store {
    pub(crate) fn layer_folder(&self, diff_id: &Digest, variant: Variant) -> PathBuf {
        self.layers().join(format!("{}.{variant}", diff_id.hex()))
    }

    /// The layer of that archive, if it is here.
    pub(crate) fn layer(
        &self,
        diff_id: &Digest,
        variant: Variant,
    ) -> Result<Option<StoredLayer>, StoreError> {
        let folder = self.layer_folder(diff_id, variant);
        let facts = folder.join("layer.json");
        let bytes = match read_bounded(&facts) {
            Err(StoreError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            other => other?,
        };
        let facts: LayerFacts = serde_json::from_slice(&bytes).map_err(|error| StoreError::Document {
            what: facts.display().to_string(),
            kind: "description of a layer",
            reason: error.to_string(),
        })?;
        Ok(Some(StoredLayer {
            folder,
            diff_id: *diff_id,
            ignored_xattrs: facts.ignored_xattrs,
            archive_bytes: facts.archive_bytes,
            file_bytes: facts.file_bytes,
            verity_root: facts.verity_root,
        }))
    }

    /// The layer of that archive, if it is here with all that belongs to it. One that was spoilt is made again.
    pub(crate) fn whole_layer(&self, diff_id: &Digest, variant: Variant) -> Option<StoredLayer> {
        let layer = self.layer(diff_id, variant).ok()??;
        let bytes = fs::metadata(layer.folder.join("layer.vhd")).ok()?.len();
        (bytes == layer.file_bytes && layer.folder.join("lease").exists()).then_some(layer)
    }

    /// Puts a finished folder in its place. Another process may have been faster: then its layer, which is the same, stays.
    /// A spoilt one makes way.
    pub(crate) fn place_layer(
        &self,
        made: &Path,
        diff_id: &Digest,
        variant: Variant,
    ) -> Result<(), StoreError> {
        let folder = self.layer_folder(diff_id, variant);
        match fs::rename(made, &folder) {
            Ok(()) => return crate::store::sync_directory_of(&folder),
            Err(error) if fs::symlink_metadata(&folder).is_err() => return Err(error).at("name", &folder),
            // Something is there.
            Err(_) => {}
        }
        if self.whole_layer(diff_id, variant).is_some() {
            return remove_any(made);
        }
        fs::rename(&folder, made.with_extension("spoilt")).at("move away", &folder)?;
        fs::rename(made, &folder).at("name", &folder)?;
        crate::store::sync_directory_of(&folder)
    }

    /// Keeps an image's layers here while the lease lives.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn lease(&self, layers: &[StoredLayer]) -> Result<Lease, StoreError> {
        let locks = layers
            .iter()
            .map(|layer| Lock::shared_existing(&layer.folder.join("lease")));
        Ok(Lease {
            _locks: locks.collect::<Result<_, StoreError>>()?,
        })
    }
}
