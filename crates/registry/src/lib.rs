//! Images from registries (OCI distribution specification), by the crate `oci-client`.
//!
//! [`Remote::open`] fetches the documents; the store then asks for the layers ([`cofferdam_store::LayerSource`]) and makes
//! disks of them while they come. A connection that breaks is opened again where it broke, so that a layer is one stream
//! from its first byte to its last; digests are checked by whoever reads it.

mod credentials;
mod error;
mod layers;
mod remote;

pub use credentials::Credentials;
pub use error::RegistryError;
pub use remote::{Options, Remote};
