//! What `docker save` writes: `manifest.json`, configurations, and layers as archives in the archive.

use std::{
    io::{self, Read},
    path::Path,
};

use oci_spec::image::{
    DescriptorBuilder, ImageConfiguration, ImageManifestBuilder, MediaType, SCHEMA_VERSION,
};
use serde::Deserialize;

use crate::{
    Documents, LayerDocument, LayerSource, Platform, StoreError,
    documents::digest_in,
    source::{LocalImage, index::ArchiveIndex},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

struct Layers {
    index: ArchiveIndex,
    paths: Vec<String>,
}

impl LayerSource for Layers {
    fn open(&self, number: usize, _layer: &LayerDocument) -> io::Result<Box<dyn Read + Send>> {
        let path = self.paths.get(number).map_or("", String::as_str);
        Ok(Box::new(self.index.open(path)?))
    }
}

/// The image of that name, or the only one.
pub(super) fn open(
    path: &Path,
    index: ArchiveIndex,
    name: Option<&str>,
    platform: &Platform,
) -> Result<LocalImage, StoreError> {
    let bad = |reason: String| StoreError::Document {
        what: format!("{}: manifest.json", path.display()),
        kind: "list of images as docker saves it",
        reason,
    };
    let list = index.read("manifest.json")?;
    let list: Vec<Saved> = serde_json::from_slice(&list).map_err(|error| bad(error.to_string()))?;
    let tags = |saved: &Saved| saved.repo_tags.clone().unwrap_or_default();
    let mut candidates: Vec<_> = list
        .into_iter()
        .filter(|saved| name.is_none_or(|name| tags(saved).iter().any(|tag| tag == name)))
        .collect();
    if candidates.len() > 1 {
        return Err(StoreError::SeveralImages {
            path: path.to_owned(),
            names: candidates.iter().flat_map(tags).collect::<Vec<_>>().join(", "),
        });
    }
    let Some(saved) = candidates.pop() else {
        return Err(StoreError::NotFound(name.unwrap_or("(any)").to_owned()));
    };
    let config = index.read(&saved.config)?;
    let shown = tags(&saved)
        .first()
        .cloned()
        .unwrap_or_else(|| saved.config.clone());
    let configuration: ImageConfiguration =
        serde_json::from_slice(&config).map_err(|error| bad(error.to_string()))?;
    let diff_ids = configuration.rootfs().diff_ids();
    if diff_ids.len() != saved.layers.len() {
        return Err(bad(format!(
            "it has {} layers, and the configuration {}",
            saved.layers.len(),
            diff_ids.len()
        )));
    }
    // The image gets the manifest that a registry would have of the layers as they are: uncompressed.
    let descriptor = |media_type, bytes: u64, digest: &str| {
        let digest = digest_in(&shown, digest)?;
        let digest: oci_spec::image::Digest = digest
            .to_string()
            .parse()
            .map_err(|_| bad("a digest".to_owned()))?;
        DescriptorBuilder::default()
            .media_type(media_type)
            .size(bytes)
            .digest(digest)
            .build()
            .map_err(|error| bad(error.to_string()))
    };
    let layers = diff_ids
        .iter()
        .zip(&saved.layers)
        .map(|(diff_id, layer)| descriptor(MediaType::ImageLayer, index.length(layer).unwrap_or(0), diff_id))
        .collect::<Result<Vec<_>, _>>()?;
    let config_digest = cofferdam_archive::Digest::of(&config).to_string();
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(
            MediaType::ImageConfig,
            config.len() as u64,
            &config_digest,
        )?)
        .layers(layers)
        .build()
        .map_err(|error| bad(error.to_string()))?;
    let bytes = serde_json::to_vec(&manifest).map_err(|error| bad(error.to_string()))?;
    let mut documents = Documents::of(&shown, bytes, &manifest, config)?.fitting(platform)?;
    for layer in &mut documents.layers {
        // A layer may be compressed in the archive; only what is in it is promised.
        layer.digest = None;
    }
    Ok(LocalImage {
        name: tags(&saved).first().cloned(),
        documents,
        source: Box::new(Layers {
            index,
            paths: saved.layers,
        }),
    })
}
