//! Tar streams, of image layers above all: read entry by entry, whatever is in them, and written.
//!
//! [`Input`] reads, decompresses and digests with threads of its own; [`Archive`] reads entries from it, or from any other
//! buffered stream. All that an archive may make us hold is bounded by [`Limits`]. [`Writer`] makes such a stream.
//!
//! ```
//! use cofferdam_archive::{Archive, Input, InputOptions, Limits};
//!
//! let end_of_archive = std::io::Cursor::new([0; 1024]);
//! let input = Input::new(end_of_archive, InputOptions { archive_digest: true, ..InputOptions::default() })?;
//! let mut archive = Archive::new(input, Limits::default());
//! assert!(archive.next_entry()?.is_none());
//! let digests = archive.finish()?.finish()?;
//! assert_eq!(digests.archive_bytes, 1024);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod entry;
mod error;
mod header;
#[cfg(feature = "input")]
mod input;
mod limits;
mod number;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use entry::{Entry, Kind, Segment, Time, Xattr};
pub use error::{ArchiveError, Place};
#[cfg(feature = "input")]
pub use input::{BadDigest, Compression, Digest, Digests, Input, InputOptions};
pub use limits::Limits;
pub use reader::Archive;
pub use writer::Writer;
