//! What can be wrong with an archive.

use std::io;

/// Why an archive could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The input failed.
    #[error("could not read the archive at byte {offset}: {source}")]
    Read {
        /// Where, in the decompressed stream.
        offset: u64,
        /// The system's or the decompressor's reason.
        #[source]
        source: io::Error,
    },
}
