//! Images that are here.

use std::collections::BTreeSet;

use cofferdam_archive::Digest;
use oci_spec::image::ImageConfiguration;

use crate::{
    Reference, Store, StoreError, StoredLayer, Variant,
    documents::{Documents, Top, digest_in, top},
    references::{Entry, References},
};

/// Digits of a digest that name an image, at least.
const SHORTEST_PREFIX: usize = 4;

/// An image that can be run.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its names.
    pub names: Vec<String>,
    /// The digest of its manifest.
    pub manifest_digest: Digest,
    /// The digest of its configuration: what docker calls the image's ID.
    pub id: Digest,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// The configuration as it came.
    pub config_json: Vec<u8>,
    /// How its layers were made.
    pub variant: Variant,
    /// Its layers, the base first. A layer that comes again is where it was the last time: what is below it is the same.
    pub layers: Vec<StoredLayer>,
    /// When it got its newest name, in seconds since 1970.
    pub since: u64,
}

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Its name.
    pub name: String,
    /// The digest of its configuration.
    pub id: Digest,
    /// The digest of its manifest.
    pub manifest_digest: Digest,
    /// How many layers it has.
    pub layers: usize,
    /// Bytes of the layers' files, also of those it shares with others.
    pub bytes: u64,
    /// When it got the name, in seconds since 1970.
    pub since: u64,
}

impl Store {
    /// The image of a name, a digest, or the unique start of one. A name with a digest is also the image of that digest
    /// whose name has another tag or none, as for docker.
    ///
    /// # Errors
    /// There is none, or its parts are not what they should be.
    pub fn image(&self, name: &str) -> Result<Image, StoreError> {
        settled(|| self.found(&self.references()?, name))
    }

    fn found(&self, references: &References, name: &str) -> Result<Image, StoreError> {
        if let Ok(reference) = name.parse::<Reference>()
            && let Some(entry) = references
                .get(&reference.to_string())
                .or_else(|| pinned(references, &reference))
        {
            return self.load(references, entry);
        }
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let is_prefix =
            digits.len() >= SHORTEST_PREFIX && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_prefix {
            // What is wrong with a name is said where it can be nothing else.
            name.parse::<Reference>()?;
            return Err(StoreError::NotFound(name.to_owned()));
        }
        let mut found = BTreeSet::new();
        let mut image = None;
        for entry in references.values() {
            let manifest = entry.manifest()?;
            let id = self.documents(&manifest)?.config_digest;
            if (manifest.hex().starts_with(digits) || id.hex().starts_with(digits)) && found.insert(id) {
                image = Some(entry);
            }
        }
        match (image, found.len()) {
            (Some(entry), 1) => self.load(references, entry),
            (Some(_), _) => Err(StoreError::Ambiguous(name.to_owned())),
            (None, _) => Err(StoreError::NotFound(name.to_owned())),
        }
    }

    /// All names, with what they stand for.
    ///
    /// # Errors
    /// An image's parts are not what they should be.
    pub fn list(&self) -> Result<Vec<ImageSummary>, StoreError> {
        let summary = |name: String| {
            let Some((since, image)) = self.named(&name)? else {
                return Ok(None);
            };
            Ok(Some(ImageSummary {
                name,
                id: image.id,
                manifest_digest: image.manifest_digest,
                layers: image.layers.len(),
                bytes: image.layers.iter().map(|layer| layer.file_bytes).sum(),
                since,
            }))
        };
        let names = self.references()?.into_keys();
        names.filter_map(|name| summary(name).transpose()).collect()
    }

    /// What a name from the list stands for, and since when; nothing if somebody has taken it away meanwhile.
    pub(crate) fn named(&self, name: &str) -> Result<Option<(u64, Image)>, StoreError> {
        settled(|| {
            let references = self.references()?;
            match references.get(name) {
                Some(entry) => Ok(Some((entry.since, self.load(&references, entry)?))),
                None => Ok(None),
            }
        })
    }

    /// The documents of an image that is here.
    pub(crate) fn documents(&self, manifest: &Digest) -> Result<Documents, StoreError> {
        let name = manifest.to_string();
        let bytes = self.read_blob(manifest)?;
        let Top::Manifest(parsed) = top(&name, &bytes)? else {
            return Err(StoreError::Document {
                what: name,
                kind: "manifest",
                reason: "it is an index".to_owned(),
            });
        };
        let config = self.read_blob(&digest_in(&name, parsed.config().digest().as_ref())?)?;
        Documents::of(&name, bytes, &parsed, config)
    }

    pub(crate) fn load(&self, references: &References, entry: &Entry) -> Result<Image, StoreError> {
        let manifest_digest = entry.manifest()?;
        let documents = self.documents(&manifest_digest)?;
        let mut seen = BTreeSet::new();
        let mut layers = Vec::new();
        for layer in documents
            .layers
            .iter()
            .rev()
            .filter(|layer| seen.insert(layer.diff_id))
        {
            let stored = self
                .layer(&layer.diff_id, entry.layers)?
                .ok_or_else(|| StoreError::Document {
                    what: manifest_digest.to_string(),
                    kind: "complete image",
                    reason: format!("its layer {} is gone; pull or import it again", layer.diff_id),
                })?;
            layers.push(stored);
        }
        layers.reverse();
        let same = |(name, other): (&String, &Entry)| {
            (other.manifest().ok() == Some(manifest_digest)).then(|| name.clone())
        };
        Ok(Image {
            names: references.iter().filter_map(same).collect(),
            manifest_digest,
            id: documents.config_digest,
            config: documents.configuration,
            config_json: documents.config,
            variant: entry.layers,
            layers,
            since: entry.since,
        })
    }
}

/// The image that a name with a digest stands for, where it was given another tag, or a tag and no digest.
fn pinned<'a>(references: &'a References, name: &Reference) -> Option<&'a Entry> {
    let digest = name.digest()?;
    let same = |(other, entry): &(&String, &Entry)| {
        let repository = other.parse::<Reference>().map(|other| other.repository());
        entry.manifest().ok() == Some(digest) && repository.as_ref() == Ok(&name.repository())
    };
    references.iter().find(same).map(|(_, entry)| entry)
}

/// Reads an image, again if it fails: between its name and its layers somebody may have taken it away, or away and in
/// again. Nobody is kept waiting for that, and one that is broken stays so.
fn settled<T>(read: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    for _ in 0..4 {
        match read() {
            Err(error) if !matches!(error, StoreError::NotFound(_)) => {}
            other => return other,
        }
    }
    read()
}
