//! Which name stands for which image.

use std::{collections::BTreeMap, io};

use cofferdam_archive::Digest;
use serde::{Deserialize, Serialize};

use crate::{Store, StoreError, Variant, lock::Lock, store::read_bounded};

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    manifest: String,
    /// How its layers were made.
    pub(crate) layers: Variant,
    /// When the name was given, in seconds since 1970.
    pub(crate) since: u64,
}

impl Entry {
    pub(crate) fn new(manifest: Digest, layers: Variant) -> Self {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            manifest: manifest.to_string(),
            layers,
            since,
        }
    }

    /// The manifest's digest.
    pub(crate) fn manifest(&self) -> Result<Digest, StoreError> {
        crate::documents::digest_in("references.json", &self.manifest)
    }
}

/// All names.
pub(crate) type References = BTreeMap<String, Entry>;

impl Store {
    /// The names there are.
    pub(crate) fn references(&self) -> Result<References, StoreError> {
        let path = self.references_file();
        let bytes = match read_bounded(&path) {
            Err(StoreError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(References::new());
            }
            other => other?,
        };
        serde_json::from_slice(&bytes).map_err(|error| StoreError::Document {
            what: path.display().to_string(),
            kind: "list of names",
            reason: error.to_string(),
        })
    }

    /// Changes the names; nobody else does meanwhile. The caller has the content's lock shared, so that nobody sweeps away
    /// the list that is being written.
    pub(crate) fn change_references<T>(
        &self,
        change: impl FnOnce(&mut References) -> T,
    ) -> Result<T, StoreError> {
        let _alone = Lock::exclusive(&self.references_lock())?;
        let mut references = self.references()?;
        let before = references.clone();
        let result = change(&mut references);
        if references != before {
            let text = serde_json::to_vec_pretty(&references).map_err(|error| StoreError::Document {
                what: "references.json".to_owned(),
                kind: "list of names",
                reason: error.to_string(),
            })?;
            self.write_atomically(&self.references_file(), &text)?;
        }
        Ok(result)
    }
}
