//! Image layers as file systems: a tar stream in, ext4 or EROFS on a disk out; and empty disks for what a container writes.
//!
//! | step | where |
//! |---|---|
//! | an entry becomes an inode and a name; what replaces what | `assemble`, `tree`, `hard_links`, `xattr` |
//! | its content goes to the next free blocks | `contents`, `space` |
//! | all that describes it is written behind the contents | `ext4`, `erofs` |
//! | a hash tree, and what is around it | `verity`, `vhd` |
//!
//! Memory does not grow with the archive: what is kept of a file goes to a temporary file beyond a few MiB (`spool`).
//!
//! ```
//! use cofferdam_archive::{Archive, Limits};
//! use cofferdam_layer::{Options, convert};
//!
//! let end_of_archive = [0; 1024];
//! let file = tempfile::tempfile()?;
//! let mut archive = Archive::new(&end_of_archive[..], Limits::default());
//! let layer = convert(&mut archive, &file, &Options::default())?;
//! assert_eq!((layer.entries, layer.file_bytes), (0, file.metadata()?.len()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
mod uuid;
mod verity;
mod vhd;
mod xattr;

pub use convert::{Container, Filesystem, Layer, Options, convert};
pub use error::{LayerError, Show};
pub use scratch::{SCRATCH_BYTES, Scratch, ScratchError, scratch};
