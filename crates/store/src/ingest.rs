//! Filling the store: layers become disks, several at a time, in one pass over each.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use cofferdam_archive::{Archive, Input, InputOptions};
use cofferdam_layer::{LayerError, convert};

use crate::{
    Documents, Image, LayerDocument, Reference, Store, StoreError, Variant, error::At, layers::LayerFacts,
    lock::Lock, references::Entry,
};

/// Layers that are made at the same time. Each takes up to 30 MB of memory.
const AT_ONCE: usize = 3;

/// Where layers come from.
pub trait LayerSource: Sync {
    /// The layer's bytes, from the first to the last.
    ///
    /// # Errors
    /// Why there are none.
    fn open(&self, number: usize, layer: &LayerDocument) -> io::Result<Box<dyn Read + Send>>;
}

/// How far a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerProgress {
    /// It is here already.
    Present,
    /// It is being fetched and made.
    Started,
    /// So many more bytes of it were read.
    Read(u64),
    /// It is here now.
    Made,
}

/// Who is told, and may stop it.
pub trait Watch: Sync {
    /// A layer got on. Numbers count from 0, the base first.
    fn layer(&self, number: usize, layer: &LayerDocument, progress: LayerProgress);

    /// Whether to stop as soon as possible.
    fn stopped(&self) -> bool {
        false
    }
}

impl Store {
    /// Takes an image in: its layers, its documents, and its name. Layers that are here are neither fetched nor made.
    ///
    /// # Errors
    /// The first thing that went wrong. The name then stands for what it stood for, and nothing half-made is left; layers
    /// that were finished are kept for the next try.
    pub fn ingest(
        &self,
        name: &Reference,
        documents: &Documents,
        variant: Variant,
        source: &dyn LayerSource,
        watch: &dyn Watch,
    ) -> Result<Image, StoreError> {
        self.sweep()?;
        self.keep_reserve();
        let _shared = Lock::shared(&self.content_lock())?;
        let ingests = self.ingests();
        let work = tempfile::Builder::new()
            .prefix("image-")
            .tempdir_in(&ingests)
            .at("make a directory in", &ingests)?;
        let ingest = Ingest {
            store: self,
            documents,
            variant,
            source,
            watch,
            work: work.path(),
            failed: AtomicBool::new(false),
        };
        ingest.layers()?;
        self.write_blob(&documents.config)?;
        let manifest = self.write_blob(&documents.manifest)?;
        let entry = Entry::new(manifest, variant);
        self.change_references(|references| references.insert(name.to_string(), entry.clone()))?;
        self.load(&self.references()?, &entry)
    }
}

struct Ingest<'a> {
    store: &'a Store,
    documents: &'a Documents,
    variant: Variant,
    source: &'a dyn LayerSource,
    watch: &'a dyn Watch,
    work: &'a Path,
    failed: AtomicBool,
}

impl Ingest<'_> {
    fn layers(&self) -> Result<(), StoreError> {
        let next = AtomicUsize::new(0);
        let first_error = Mutex::new(None);
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(layer) = self.documents.layers.get(number) else {
                    return;
                };
                if self.stopped() {
                    return;
                }
                if let Err(error) = self.layer(number, layer) {
                    // The others' errors are of being stopped.
                    if !self.failed.swap(true, Ordering::Relaxed) {
                        *first_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                    return;
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(self.documents.layers.len()) {
                scope.spawn(work);
            }
        });
        if self.watch.stopped() {
            return Err(StoreError::Stopped);
        }
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn stopped(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.watch.stopped()
    }

    fn layer(&self, number: usize, layer: &LayerDocument) -> Result<(), StoreError> {
        if self.store.whole_layer(&layer.diff_id, self.variant).is_some() {
            self.watch.layer(number, layer, LayerProgress::Present);
            return Ok(());
        }
        self.watch.layer(number, layer, LayerProgress::Started);
        let folder = self.work.join(number.to_string());
        fs::create_dir(&folder).at("make", &folder)?;
        let facts = self.make(number, layer, &folder.join("layer.vhd"))?;
        let json = serde_json::to_vec(&facts).map_err(|error| StoreError::Document {
            what: "layer.json".to_owned(),
            kind: "description of a layer",
            reason: error.to_string(),
        })?;
        let lease = folder.join("lease");
        File::create(&lease).at("make", &lease)?;
        self.store.write_atomically(&folder.join("layer.json"), &json)?;
        self.store.place_layer(&folder, &layer.diff_id, self.variant)?;
        self.watch.layer(number, layer, LayerProgress::Made);
        Ok(())
    }

    /// One pass: fetched, digested, decompressed, digested, converted.
    fn make(&self, number: usize, layer: &LayerDocument, path: &Path) -> Result<LayerFacts, StoreError> {
        let count = self.documents.layers.len();
        let read = |source| StoreError::Read {
            number: number + 1,
            count,
            digest: layer.name(),
            source,
        };
        let in_layer = |source: LayerError| StoreError::Layer {
            number: number + 1,
            count,
            digest: layer.name(),
            source: Box::new(source),
        };
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .at("make", path)?;
        let (told, tell) = std::sync::mpsc::channel();
        let counted = Counted {
            source: self.source.open(number, layer).map_err(read)?,
            left: layer.digest.map(|_| layer.bytes),
            told,
        };
        let input = Input::new(
            counted,
            InputOptions {
                compressed_digest: layer.digest.is_some(),
                archive_digest: true,
            },
        )
        .map_err(read)?
        .limited(self.store.limits().archive_bytes);
        let mut archive = Archive::new(
            Watched {
                input,
                ingest: self,
                number,
                layer,
                tell,
            },
            self.store.limits(),
        );
        let made = convert(&mut archive, &file, &self.variant.options()).map_err(in_layer)?;
        let watched = archive.finish().map_err(|error| in_layer(error.into()))?;
        let digests = watched.input.finish().map_err(read)?;
        let found = [
            (layer.digest, digests.compressed),
            (Some(layer.diff_id), digests.archive),
        ];
        for (expected, found) in found {
            if let (Some(expected), Some(found)) = (expected, found) {
                StoreError::check_digest(&format!("layer {} of {count}", number + 1), expected, found)?;
            }
        }
        file.sync_all().at("sync", path)?;
        Ok(LayerFacts {
            entries: made.entries,
            ignored_xattrs: made.ignored_xattrs,
            archive_bytes: digests.archive_bytes,
            file_bytes: made.file_bytes,
            verity_root: made.verity_root.map(|root| root.hex()),
        })
    }
}

/// A source that may not be longer than was said, and says from the reading thread how much was read.
struct Counted {
    source: Box<dyn Read + Send>,
    left: Option<u64>,
    told: std::sync::mpsc::Sender<u64>,
}

impl Read for Counted {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(bytes)?;
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(length as u64)
                .ok_or_else(|| io::Error::other("it is longer than its manifest says"))?;
        }
        // Nobody listens any more: the layer has failed, and this thread is about to end.
        let _ = self.told.send(length as u64);
        Ok(length)
    }
}

/// The input, stopped when all is.
struct Watched<'a, 'b> {
    input: Input,
    ingest: &'a Ingest<'b>,
    number: usize,
    layer: &'a LayerDocument,
    tell: std::sync::mpsc::Receiver<u64>,
}

impl Read for Watched<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.input.read(bytes)
    }
}

impl io::BufRead for Watched<'_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.ingest.stopped() {
            return Err(io::Error::other("stopped"));
        }
        let read: u64 = self.tell.try_iter().sum();
        if read > 0 {
            self.ingest
                .watch
                .layer(self.number, self.layer, LayerProgress::Read(read));
        }
        self.input.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.input.consume(length);
    }
}
