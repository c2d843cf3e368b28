//! What can go wrong.

use std::io;

/// Why something was not mounted, or not taken away.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The system refused something.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, with the path or device.
        action: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Something still uses the device or directory.
    #[error("{what} is busy: {holder}")]
    Busy {
        /// What cannot be let go.
        what: String,
        /// Who holds it.
        holder: String,
    },
    /// A device's blocks are to be checked against a hash tree, and cannot be, or are not what the tree says.
    #[error("dm-verity of {device}: {problem}")]
    Verity {
        /// The device, as its node is called.
        device: String,
        /// What is wrong.
        problem: String,
    },
}

/// Result of one step.
pub type Result<T, E = MountError> = std::result::Result<T, E>;

/// Puts the action beside a system error.
pub trait During<T> {
    /// Adds what was being done.
    ///
    /// # Errors
    /// The error it had, with the action.
    fn during(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> During<T> for std::result::Result<T, E> {
    fn during(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| MountError::Io {
            action: action(),
            source: error.into(),
        })
    }
}
