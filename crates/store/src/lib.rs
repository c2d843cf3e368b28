//! Images on this host.
//!
//! | in the store's directory | is |
//! |---|---|
//! | `blobs/sha256/DIGEST` | a manifest or a configuration, as it came |
//! | `layers/DIFFID.FORMAT/layer.vhd` | a layer as a disk: the folder that a bundle's `windows.layerFolders` names |
//! | `layers/DIFFID.FORMAT/layer.json` | what it was made of |
//! | `layers/DIFFID.FORMAT/lease` | locked by whoever uses the layer |
//! | `references.json` | names, and the manifests they stand for |
//! | `reserve` | room that is given up when a name is to be taken away on a full disk |
//! | `ingest/` | what is being made; what is there while nobody makes anything is what a killed process left |
//!
//! A thing is put together in `ingest/` and gets its name when it is complete and on the disk, so that a name never stands
//! for half of anything, whatever ends the process. [`Store::ingest`] fills the store, [`Store::remove`] and
//! [`Store::collect`] empty it, [`Store::image`] is for whoever runs an image.

mod check;
mod collect;
mod documents;
mod error;
mod image;
mod ingest;
mod layers;
mod lock;
mod reference;
mod references;
mod source;
mod store;

pub use check::Problem;
pub use collect::Collected;
pub use documents::{DocumentKind, Documents, Fetch, LayerDocument, Platform};
pub use error::StoreError;
pub use image::{Image, ImageSummary};
pub use ingest::{LayerProgress, LayerSource, Watch};
pub use layers::{Lease, StoredLayer, Variant};
pub use oci_spec::image::ImageConfiguration;
pub use reference::{BadReference, Reference};
pub use source::{LocalImage, open_local};
pub use store::Store;
