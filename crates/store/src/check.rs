//! Whether the store is what its names say.

use std::fs;

use crate::{Store, StoreError, error::At, lock::Lock};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is about.
    pub what: String,
    /// What is wrong.
    pub reason: String,
}

impl Store {
    /// Looks at every name, document and layer's file, and at what is half-made while nobody makes anything.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn check(&self) -> Result<Vec<Problem>, StoreError> {
        let mut problems = Vec::new();
        for name in self.references()?.into_keys() {
            match self.named(&name) {
                Ok(None) => {}
                Err(error) => problems.push(Problem {
                    what: name,
                    reason: error.to_string(),
                }),
                Ok(Some((_, image))) => {
                    for layer in image.layers {
                        let path = layer.folder.join("layer.vhd");
                        let found = fs::metadata(&path).map(|facts| facts.len()).ok();
                        if found != Some(layer.file_bytes) {
                            problems.push(Problem {
                                what: path.display().to_string(),
                                reason: format!(
                                    "it has {found:?} bytes, and should have {}",
                                    layer.file_bytes
                                ),
                            });
                        }
                    }
                }
            }
        }
        if let Some(_alone) = Lock::try_exclusive(&self.content_lock())? {
            let dir = self.ingests();
            for entry in fs::read_dir(&dir).at("read", &dir)? {
                problems.push(Problem {
                    what: entry.at("read", &dir)?.path().display().to_string(),
                    reason: "left half-made; the next pull or import removes it".to_owned(),
                });
            }
        }
        Ok(problems)
    }
}
