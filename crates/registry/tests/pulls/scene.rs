//! A store that is pulled into.

use cofferdam_registry::{Options, RegistryError, Remote};
use cofferdam_store::{
    Image, LayerDocument, LayerProgress, Platform, Reference, Store, StoreError, Variant, Watch,
};

use crate::image::TestImage;

/// A store in a directory that goes with it.
pub(crate) struct Scene {
    _dir: tempfile::TempDir,
    pub(crate) store: Store,
}

struct Unwatched;

impl Watch for Unwatched {
    fn layer(&self, _number: usize, _layer: &LayerDocument, _progress: LayerProgress) {}
}

/// Why there is no image.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Its documents were not had.
    Documents(RegistryError),
    /// Its layers were not had.
    Layers(StoreError),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Documents(error) => error.fmt(f),
            Self::Layers(error) => error.fmt(f),
        }
    }
}

impl Scene {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Self { _dir: dir, store }
    }

    pub(crate) fn pull(&self, name: &str, options: &Options) -> Result<Image, Failure> {
        let reference: Reference = name.parse().unwrap();
        let remote = Remote::open(&reference, &Platform::default(), options).map_err(Failure::Documents)?;
        self.store
            .ingest(
                &reference,
                &remote.documents,
                Variant::default(),
                &remote.layers,
                &Unwatched,
            )
            .map_err(Failure::Layers)
    }

    /// Pulls the image, and fails unless it is the whole one.
    #[track_caller]
    pub(crate) fn pulled(&self, name: &str, options: &Options, expected: &TestImage) {
        let image = self
            .pull(name, options)
            .unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!(image.manifest_digest.to_string(), expected.digest());
        assert_eq!(image.id.to_string(), expected.config);
        assert_eq!(image.layers.len(), 2);
        assert_eq!(image.layers[1].diff_id.to_string(), expected.large);
        assert_eq!(image.layers[1].archive_bytes, expected.large().len() as u64);
        assert_eq!(self.store.check().unwrap(), []);
    }

    /// Pulls an image that is refused with a message that has these parts, and fails if anything of it is left.
    #[track_caller]
    pub(crate) fn refused(&self, name: &str, options: &Options, parts: &[&str]) -> Failure {
        let failure = self.pull(name, options).unwrap_err();
        let error = failure.to_string();
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
        assert_eq!(self.store.check().unwrap(), []);
        assert!(self.store.list().unwrap().is_empty());
        failure
    }
}
