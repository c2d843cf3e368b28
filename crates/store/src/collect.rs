//! Emptying the store: names first, then whatever no name needs.

use std::{collections::BTreeSet, fs};

use crate::{Reference, Store, StoreError, error::At, lock::Lock, store::remove_any};

/// What was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Layers.
    pub layers: usize,
    /// Bytes of their files.
    pub bytes: u64,
    /// Layers that no image needs but somebody uses.
    pub in_use: usize,
    /// Somebody is adding to the store: nothing was thrown away, and will be the next time.
    pub postponed: bool,
}

impl Store {
    /// Takes a name away, or with a digest all names of that image. What no other name needs goes.
    ///
    /// # Errors
    /// There is no such image, or something could not be removed: whatever was left goes the next time.
    pub fn remove(&self, name: &str) -> Result<(Vec<String>, Collected), StoreError> {
        let exact = name.parse::<Reference>().map(|reference| reference.to_string());
        let removed = match exact {
            Ok(exact) if self.references()?.contains_key(&exact) => vec![exact],
            _ => self.image(name)?.names,
        };
        {
            // The new list is written where others sweep.
            let _shared = Lock::shared(&self.content_lock())?;
            let forget =
                || self.change_references(|references| references.retain(|name, _| !removed.contains(name)));
            match forget() {
                Err(error) if error.is_full() && self.spend_reserve() => forget()?,
                other => other?,
            }
        }
        let collected = self.collect()?;
        self.keep_reserve();
        Ok((removed, collected))
    }

    /// Throws away what no name needs and nobody uses.
    ///
    /// # Errors
    /// A name's documents cannot be read, so that it is unknown what it needs; or the system's.
    pub fn collect(&self) -> Result<Collected, StoreError> {
        self.sweep()?;
        let mut collected = Collected::default();
        let Some(_alone) = Lock::try_exclusive(&self.content_lock())? else {
            collected.postponed = true;
            return Ok(collected);
        };
        let mut blobs = BTreeSet::new();
        let mut layers = BTreeSet::new();
        for entry in self.references()?.values() {
            let manifest = entry.manifest()?;
            let documents = self.documents(&manifest)?;
            blobs.extend([manifest.hex(), documents.config_digest.hex()]);
            for layer in &documents.layers {
                layers.insert(self.layer_folder(&layer.diff_id, entry.layers));
            }
        }
        let dir = self.layers();
        for entry in fs::read_dir(&dir).at("read", &dir)? {
            let folder = entry.at("read", &dir)?.path();
            if layers.contains(&folder) {
                continue;
            }
            let lease = folder.join("lease");
            let free = lease.exists().then(|| Lock::try_exclusive(&lease)).transpose()?;
            if matches!(free, Some(None)) {
                collected.in_use += 1;
                continue;
            }
            collected.bytes += fs::metadata(folder.join("layer.vhd")).map_or(0, |facts| facts.len());
            collected.layers += 1;
            // Gone at once for whoever looks, whatever removing it meets. A full disk has no room for a new directory.
            let trash = self.ingests().join("removed");
            remove_any(&trash)?;
            fs::rename(&folder, &trash).at("move away", &folder)?;
            remove_any(&trash)?;
        }
        let dir = self.blobs();
        for entry in fs::read_dir(&dir).at("read", &dir)? {
            let entry = entry.at("read", &dir)?;
            if !entry
                .file_name()
                .to_str()
                .is_some_and(|name| blobs.contains(name))
            {
                remove_any(&entry.path())?;
            }
        }
        Ok(collected)
    }
}
