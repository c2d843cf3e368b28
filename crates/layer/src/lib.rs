//! Image layers as file systems: a tar stream in, ext4 or EROFS on a disk out.

mod convert;
mod error;

pub use convert::{Container, Filesystem, Layer, Options, convert};
pub use error::LayerError;
