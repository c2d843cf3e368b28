//! What can go wrong.

use std::io;

use crate::AccountError;

/// Why a root filesystem could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The system refused something.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, with the path.
        action: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is no such user or group.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The document asks for something that makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// Puts the action beside a system error.
pub(crate) trait During<T> {
    fn during(self, action: impl FnOnce() -> String) -> Result<T, RootfsError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, action: impl FnOnce() -> String) -> Result<T, RootfsError> {
        self.map_err(|error| RootfsError::Io {
            action: action(),
            source: error.into(),
        })
    }
}
