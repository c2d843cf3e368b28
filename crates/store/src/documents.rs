//! Image documents: indexes, manifests, configurations.
//!
//! OCI's and docker's own (schema 2) are the same but for their media types. Source: OCI image specification, "Image
//! Index", "Image Manifest", "Image Configuration".

use std::fmt;

use cofferdam_archive::Digest;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde_json::Value;

use crate::{StoreError, store::check_size};

/// Layers of one image: overlay in a VM has room for so many and more.
const LAYERS: usize = 500;

/// What an image has to be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// The operating system, as Go names it.
    pub os: String,
    /// The processor, as Go names it.
    pub architecture: String,
    /// Its variant (`v8`), where it matters.
    pub variant: Option<String>,
}

impl Default for Platform {
    /// Linux on this host's processor.
    fn default() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .iter()
            .try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl std::str::FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split('/').collect();
        let [os, architecture, variant @ ..] = &parts[..] else {
            return Err(format!("`{text}` is no platform; `linux/amd64` is one"));
        };
        if os.is_empty() || architecture.is_empty() || variant.len() > 1 {
            return Err(format!("`{text}` is no platform; `linux/arm64/v8` is one"));
        }
        Ok(Self {
            os: (*os).to_owned(),
            architecture: (*architecture).to_owned(),
            variant: variant.first().map(|variant| (*variant).to_owned()),
        })
    }
}

/// An index or a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Top {
    /// Manifests for several platforms or names.
    Index(Box<ImageIndex>),
    /// One image's.
    Manifest(Box<ImageManifest>),
}

/// Reads whichever of the two it is.
pub(crate) fn top(what: &str, bytes: &[u8]) -> Result<Top, StoreError> {
    check_size(&what, bytes.len() as u64)?;
    let bad = |kind, reason: String| StoreError::Document {
        what: what.to_owned(),
        kind,
        reason,
    };
    let value: Value = serde_json::from_slice(bytes).map_err(|error| bad("manifest", error.to_string()))?;
    if value.get("manifests").is_some() {
        let index = serde_json::from_value(value).map_err(|error| bad("image index", error.to_string()))?;
        return Ok(Top::Index(index));
    }
    if value.get("schemaVersion").and_then(Value::as_u64) == Some(1) {
        return Err(bad(
            "manifest",
            "it is of schema 1, which docker gave up in 2019".to_owned(),
        ));
    }
    let manifest = serde_json::from_value(value).map_err(|error| bad("manifest", error.to_string()))?;
    Ok(Top::Manifest(Box::new(manifest)))
}

/// The index's manifest for a platform.
pub(crate) fn choose<'a>(index: &'a ImageIndex, platform: &Platform) -> Result<&'a Descriptor, StoreError> {
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform().as_ref().is_none_or(|there| {
            there.os().to_string() == platform.os
                && there.architecture().to_string() == platform.architecture
                && (platform.variant.is_none() || *there.variant() == platform.variant)
        })
    };
    index.manifests().iter().find(fits).ok_or_else(|| {
        let names = index.manifests().iter().filter_map(|descriptor| {
            let there = descriptor.platform().as_ref()?;
            Some(format!("{}/{}", there.os(), there.architecture()))
        });
        StoreError::Platform {
            wanted: platform.to_string(),
            available: names.take(20).collect::<Vec<_>>().join(", "),
        }
    })
}

/// A digest in a document.
pub(crate) fn digest_in(what: &str, text: &str) -> Result<Digest, StoreError> {
    text.parse()
        .map_err(|error: cofferdam_archive::BadDigest| StoreError::Document {
            what: what.to_owned(),
            kind: "image",
            reason: error.to_string(),
        })
}

/// A layer as the documents describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerDocument {
    /// Digest of the layer as it comes, compressed or not; `None` where nobody said.
    pub digest: Option<Digest>,
    /// Size of it, in bytes.
    pub bytes: u64,
    /// Digest of its archive.
    pub diff_id: Digest,
}

impl LayerDocument {
    /// What it is called in messages.
    pub fn name(&self) -> Digest {
        self.digest.unwrap_or(self.diff_id)
    }
}

/// One image's documents, checked against each other.
#[derive(Debug, Clone)]
pub struct Documents {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) config_digest: Digest,
    pub(crate) configuration: ImageConfiguration,
    pub(crate) layers: Vec<LayerDocument>,
}

impl Documents {
    /// The manifest or index at hand, and how others are fetched by digest and size; for an index, the manifest of
    /// `platform` is taken. Gives the documents.
    ///
    /// # Errors
    /// A document that is too large, is no such document, contradicts another, or could not be fetched; an image for
    /// another platform.
    pub fn gather(
        name: &str,
        first: Vec<u8>,
        platform: &Platform,
        fetch: &mut Fetch<'_>,
    ) -> Result<Self, StoreError> {
        let mut checked = |what: String, descriptor: &Descriptor, kind| {
            let digest = digest_in(&what, descriptor.digest().as_ref())?;
            check_size(&what, descriptor.size())?;
            let bytes = fetch(&digest, descriptor.size(), kind)?;
            StoreError::check_digest(&what, digest, Digest::of(&bytes))?;
            Ok::<_, StoreError>(bytes)
        };
        let mut bytes = first;
        let mut manifest = top(&format!("the manifest of {name}"), &bytes)?;
        // Whoever wrote an index said which image is for whom, and may be right where a configuration is not.
        let mut is_chosen = false;
        // An index may hold indexes; one level is what anybody writes.
        for _ in 0..2 {
            if let Top::Index(index) = &manifest {
                let what = format!("the manifest of {name} for {platform}");
                let chosen = choose(index, platform)?;
                is_chosen |= chosen.platform().is_some();
                bytes = checked(what.clone(), chosen, DocumentKind::Manifest)?;
                manifest = top(&what, &bytes)?;
            }
        }
        let Top::Manifest(manifest) = manifest else {
            return Err(StoreError::Document {
                what: name.to_owned(),
                kind: "image",
                reason: "its index leads to another, and that to a third".to_owned(),
            });
        };
        let what = format!("the configuration of {name}");
        let config = checked(what, manifest.config(), DocumentKind::Config)?;
        let documents = Self::of(name, bytes, &manifest, config)?;
        if is_chosen {
            Ok(documents)
        } else {
            documents.fitting(platform)
        }
    }

    /// Itself, unless its configuration says that it is for another platform.
    pub(crate) fn fitting(self, platform: &Platform) -> Result<Self, StoreError> {
        let (os, architecture) = (self.configuration.os(), self.configuration.architecture());
        let (os, architecture) = (os.to_string(), architecture.to_string());
        // Old builders left them empty.
        let fits = |there: &str, wanted: &str| there.is_empty() || there == wanted;
        if fits(&os, &platform.os) && fits(&architecture, &platform.architecture) {
            return Ok(self);
        }
        Err(StoreError::Platform {
            wanted: platform.to_string(),
            available: format!("{os}/{architecture}"),
        })
    }

    /// A manifest and its configuration.
    pub(crate) fn of(
        name: &str,
        bytes: Vec<u8>,
        manifest: &ImageManifest,
        config: Vec<u8>,
    ) -> Result<Self, StoreError> {
        let bad = |kind, reason: String| StoreError::Document {
            what: format!("the configuration of {name}"),
            kind,
            reason,
        };
        check_size(&name, config.len() as u64)?;
        let configuration: ImageConfiguration =
            serde_json::from_slice(&config).map_err(|error| bad("image configuration", error.to_string()))?;
        let diff_ids = configuration.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers().len() {
            return Err(bad(
                "match for the manifest",
                format!(
                    "it has {} layers, and the manifest {}",
                    diff_ids.len(),
                    manifest.layers().len()
                ),
            ));
        }
        if diff_ids.len() > LAYERS || diff_ids.is_empty() {
            return Err(bad(
                "image that can be run",
                format!("it has {} layers; 1 to {LAYERS} are possible", diff_ids.len()),
            ));
        }
        let layers = diff_ids
            .iter()
            .zip(manifest.layers())
            .map(|(diff_id, layer)| {
                let media_type = layer.media_type().to_string();
                if media_type.contains("foreign") || media_type.contains("nondistributable") {
                    return Err(bad(
                        "image that can be fetched",
                        format!("a layer is of type {media_type}, which registries do not hold"),
                    ));
                }
                Ok(LayerDocument {
                    digest: Some(digest_in(name, layer.digest().as_ref())?),
                    bytes: layer.size(),
                    diff_id: digest_in(name, diff_id)?,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            manifest: bytes,
            config_digest: Digest::of(&config),
            config,
            configuration,
            layers,
        })
    }

    /// The image's layers, the base first.
    pub fn layers(&self) -> &[LayerDocument] {
        &self.layers
    }

    /// The digest of the manifest.
    pub fn manifest_digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// Which document is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// A manifest or an index.
    Manifest,
    /// A configuration.
    Config,
}

impl fmt::Display for DocumentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Config => "configuration",
        })
    }
}

/// How a document is fetched: by its digest and its size in bytes.
pub type Fetch<'a> = dyn FnMut(&Digest, u64, DocumentKind) -> Result<Vec<u8>, StoreError> + 'a;
