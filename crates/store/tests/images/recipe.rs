//! Images made for a test, right in every part unless the test spoils one.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Cursor, Read, Write},
    path::Path,
    sync::Mutex,
};

use cofferdam_archive::Digest;
use cofferdam_store::{
    Documents, Image, LayerDocument, LayerProgress, LayerSource, Platform, Reference, Store, StoreError,
    Variant, Watch,
};
use serde_json::{Value, json};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An archive of files.
pub(crate) fn tar_of<N: AsRef<str>, C: AsRef<[u8]>>(files: &[(N, C)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let (name, content) = (name.as_ref(), content.as_ref());
        let mut header = tar::Header::new_gnu();
        // As it is: a hostile name is a name too.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Bytes that do not compress, others for each seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

pub(crate) fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer as an archive, and as it comes.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) archive: Vec<u8>,
    pub(crate) blob: Vec<u8>,
}

impl Layer {
    /// A file of that name and content, uncompressed.
    pub(crate) fn plain(name: &str, content: &str) -> Self {
        Self::of(tar_of(&[(name, content)]))
    }

    pub(crate) fn of(archive: Vec<u8>) -> Self {
        Self {
            blob: archive.clone(),
            archive,
        }
    }

    pub(crate) fn gzipped(self) -> Self {
        Self {
            blob: gzipped(&self.archive),
            archive: self.archive,
        }
    }
}

/// An image, part by part.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) manifest: Value,
    pub(crate) config: Value,
    /// By digest, layers and whatever is asked for.
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
}

impl Recipe {
    pub(crate) fn of(layers: &[Layer]) -> Self {
        let digest = |bytes: &[u8]| Digest::of(bytes).to_string();
        let diff_ids: Vec<_> = layers.iter().map(|layer| digest(&layer.archive)).collect();
        let described: Vec<_> = layers
            .iter()
            .map(|layer| {
                let compressed = if layer.blob == layer.archive { "" } else { "+gzip" };
                json!({
                    "mediaType": format!("{LAYER}{compressed}"),
                    "digest": digest(&layer.blob),
                    "size": layer.blob.len(),
                })
            })
            .collect();
        let platform = Platform::default();
        let recipe = Self {
            manifest: json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {},
                "layers": described,
            }),
            config: json!({
                "os": platform.os,
                "architecture": platform.architecture,
                "config": { "Cmd": ["/bin/true"] },
                "rootfs": { "type": "layers", "diff_ids": diff_ids },
            }),
            blobs: layers
                .iter()
                .map(|layer| (digest(&layer.blob), layer.blob.clone()))
                .collect(),
        };
        recipe.sealed()
    }

    /// An image of two layers.
    pub(crate) fn small() -> Self {
        Self::of(&[
            Layer::plain("base", "the base").gzipped(),
            Layer::plain("top", "the top"),
        ])
    }

    /// With a manifest that fits the configuration as it is now.
    pub(crate) fn sealed(mut self) -> Self {
        let config = self.config.to_string();
        self.manifest["config"] = json!({
            "mediaType": CONFIG,
            "digest": Digest::of(config.as_bytes()).to_string(),
            "size": config.len(),
        });
        self.blobs
            .insert(Digest::of(config.as_bytes()).to_string(), config.into());
        self
    }

    /// The digest of a layer as it comes, counted from 0.
    pub(crate) fn layer_digest(&self, number: usize) -> String {
        self.manifest["layers"][number]["digest"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// How an index speaks of it.
    pub(crate) fn descriptor(&self) -> Value {
        let manifest = self.manifest.to_string();
        json!({
            "mediaType": MANIFEST,
            "digest": Digest::of(manifest.as_bytes()).to_string(),
            "size": manifest.len(),
        })
    }

    /// Its documents, as from a registry.
    pub(crate) fn documents(&self) -> Result<Documents, StoreError> {
        self.documents_from(self.manifest.to_string().into_bytes())
    }

    pub(crate) fn documents_from(&self, first: Vec<u8>) -> Result<Documents, StoreError> {
        Documents::gather("test", first, &Platform::default(), &mut |digest, _, _| {
            Ok(self.blobs[&digest.to_string()].clone())
        })
    }

    pub(crate) fn ingest(&self, store: &Store, name: &str) -> Result<Image, StoreError> {
        self.ingest_from(store, name, &self.source())
    }

    pub(crate) fn ingest_from(
        &self,
        store: &Store,
        name: &str,
        source: &dyn LayerSource,
    ) -> Result<Image, StoreError> {
        store.ingest(
            &name.parse::<Reference>().unwrap(),
            &self.documents()?,
            Variant::default(),
            source,
            &Unwatched,
        )
    }

    pub(crate) fn source(&self) -> Blobs {
        Blobs {
            by_digest: self.blobs.clone(),
            opened: Mutex::new(Vec::new()),
        }
    }

    /// Adds its documents and layers to a directory as an image layout has it.
    pub(crate) fn write_blobs(&self, layout: &Path) {
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for (digest, bytes) in &self.blobs {
            fs::write(blobs.join(digest.strip_prefix("sha256:").unwrap()), bytes).unwrap();
        }
        let manifest = self.manifest.to_string();
        fs::write(blobs.join(Digest::of(manifest.as_bytes()).hex()), manifest).unwrap();
    }
}

/// Writes an image layout of these images, as its index is to describe them.
pub(crate) fn write_layout(layout: &Path, images: &[(&Recipe, Value)]) {
    for (recipe, _) in images {
        recipe.write_blobs(layout);
    }
    let manifests: Vec<_> = images.iter().map(|(_, descriptor)| descriptor).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Layers in memory, and which were asked for.
pub(crate) struct Blobs {
    by_digest: BTreeMap<String, Vec<u8>>,
    opened: Mutex<Vec<String>>,
}

impl Blobs {
    /// Digests of the layers that were opened, in that order.
    pub(crate) fn opened(&self) -> Vec<String> {
        self.opened.lock().unwrap().clone()
    }
}

impl LayerSource for Blobs {
    fn open(&self, _number: usize, layer: &LayerDocument) -> io::Result<Box<dyn Read + Send>> {
        let digest = layer.name().to_string();
        let bytes = self.by_digest.get(&digest).cloned();
        self.opened.lock().unwrap().push(digest);
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Box::new(Cursor::new(bytes)))
    }
}

/// Nobody watches.
pub(crate) struct Unwatched;

impl Watch for Unwatched {
    fn layer(&self, _number: usize, _layer: &LayerDocument, _progress: LayerProgress) {}
}

/// A store in a directory that goes with it.
pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    /// Fails unless the store is whole and has these names.
    #[track_caller]
    pub(crate) fn assert_whole(&self, names: &[&str]) {
        assert_whole(&self.store, names);
    }
}

/// Fails unless the store is whole, with nothing half-made, and has these names.
#[track_caller]
pub(crate) fn assert_whole(store: &Store, names: &[&str]) {
    assert_eq!(store.check().unwrap(), []);
    assert_eq!(files_in(&store.root().join("ingest")), Vec::<String>::new());
    let listed: Vec<_> = store
        .list()
        .unwrap()
        .into_iter()
        .map(|image| image.name)
        .collect();
    assert_eq!(listed, names);
}

/// Names in a directory.
pub(crate) fn files_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
