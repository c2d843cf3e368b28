//! QMP, QEMU's control protocol: JSON objects, one a line (QEMU's "QMP Protocol Specification").
//!
//! [`message`] is the format, [`client`] the connection.

mod client;
mod message;

pub(crate) use client::QmpClient;

use std::io;

/// Why a command brought no result.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum QmpError {
    /// QEMU refused the command.
    #[error("{description}")]
    Refused {
        /// QMP's error class: `GenericError`, `DeviceNotFound`, …
        class: String,
        /// QEMU's words.
        description: String,
    },
    /// QEMU did not answer within the limit.
    #[error("no answer within {limit_ms} ms")]
    TimedOut {
        /// The limit.
        limit_ms: u64,
    },
    /// The connection ended; the reason if it did not end by itself.
    #[error("the connection to QEMU ended{}", .0.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Closed(Option<String>),
}

impl From<io::Error> for QmpError {
    fn from(error: io::Error) -> Self {
        Self::Closed(Some(error.to_string()))
    }
}
