//! Why a layer could not be made.

use std::io;

use cofferdam_archive::ArchiveError;

/// Why a layer could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive is at fault.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The layer's file could not be written.
    #[error("could not write the layer: {source}")]
    Write {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}
