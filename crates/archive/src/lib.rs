//! Tar streams of image layers, read entry by entry, whatever is in them.

mod entry;
mod error;
mod header;
mod input;
mod limits;
mod number;
mod pax;
mod reader;
mod sparse;

pub use entry::{Entry, Kind, Segment, Time, Xattr};
pub use error::{ArchiveError, Place};
pub use input::{BadDigest, Compression, Digest, Digests, Input, InputOptions};
pub use limits::Limits;
pub use reader::Archive;
