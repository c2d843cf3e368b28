//! What can go wrong.

use std::io;

/// A failed request, or a value that cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused.
    #[error("{action}: {source}")]
    Io {
        /// What was asked for.
        action: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer does not have the shape it should have.
    #[error("{0}: the kernel's answer is malformed")]
    Malformed(String),
    /// A text or number that is no address.
    #[error("{0}")]
    Address(String),
}

/// Result of one request.
pub(crate) type Result<T, E = NetlinkError> = std::result::Result<T, E>;
