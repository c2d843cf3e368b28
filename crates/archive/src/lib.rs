//! Tar streams of image layers, read entry by entry, whatever is in them.

mod entry;
mod error;
mod limits;
mod reader;

pub use entry::{Entry, Kind, Segment, Time, Xattr};
pub use error::ArchiveError;
pub use limits::Limits;
pub use reader::Archive;
