//! Image layers as file systems: a tar stream in, ext4 or EROFS on a disk out.

mod assemble;
mod contents;
mod convert;
mod erofs;
mod error;
mod ext4;
mod hard_links;
mod records;
mod scratch;
mod space;
mod spool;
mod tree;
mod verity;
mod vhd;
mod xattr;

pub use convert::{Container, Filesystem, Layer, Options, convert};
pub use error::{LayerError, Show};
pub use scratch::{SCRATCH_BYTES, Scratch, ScratchError, scratch};
