//! The image that is pulled.

use std::collections::BTreeMap;

use cofferdam_archive::Digest;
use serde_json::{Value, json};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Bytes of the file in the large layer.
const LARGE: usize = 1 << 20;

/// An image of a small layer and a large one above it.
#[derive(Clone)]
pub(crate) struct TestImage {
    pub(crate) manifest: Vec<u8>,
    /// Configuration and layers, by digest.
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    /// Digest of the large layer.
    pub(crate) large: String,
    /// Digest of the configuration.
    pub(crate) config: String,
}

fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, content).unwrap();
    archive.into_inner().unwrap()
}

impl TestImage {
    pub(crate) fn new() -> Self {
        let content: Vec<u8> = (0..LARGE).map(|at| (at ^ (at >> 8) ^ (at >> 15)) as u8).collect();
        let layers = [layer("base", b"the base"), layer("large", &content)];
        let platform = cofferdam_store::Platform::default();
        let digest = |bytes: &[u8]| Digest::of(bytes).to_string();
        let config = json!({
            "os": platform.os,
            "architecture": platform.architecture,
            "config": { "Cmd": ["/bin/true"] },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layers[0]), digest(&layers[1])] },
        })
        .to_string()
        .into_bytes();
        let described = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() });
        let in_manifest = |bytes: &Vec<u8>| described("application/vnd.oci.image.layer.v1.tar", bytes);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(in_manifest).collect::<Vec<_>>(),
        });
        Self {
            manifest: manifest.to_string().into_bytes(),
            large: digest(&layers[1]),
            config: digest(&config),
            blobs: layers
                .into_iter()
                .chain([config])
                .map(|bytes| (digest(&bytes), bytes))
                .collect(),
        }
    }

    /// The manifest's digest.
    pub(crate) fn digest(&self) -> String {
        Digest::of(&self.manifest).to_string()
    }

    /// Bytes of the large layer.
    pub(crate) fn large(&self) -> &[u8] {
        &self.blobs[&self.large]
    }

    /// An index with this image for this host, after one for another machine.
    pub(crate) fn index(&self) -> Vec<u8> {
        let platform = cofferdam_store::Platform::default();
        let of = |os: &str, architecture: &str| -> Value {
            json!({
                "mediaType": MANIFEST,
                "digest": self.digest(),
                "size": self.manifest.len(),
                "platform": { "os": os, "architecture": architecture },
            })
        };
        let manifests = [of("windows", "arm"), of(&platform.os, &platform.architecture)];
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
            .to_string()
            .into_bytes()
    }
}
