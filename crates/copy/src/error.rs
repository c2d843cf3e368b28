//! What can go wrong.

use std::io;

use cofferdam_archive::ArchiveError;

use crate::root::without_slashes;

/// Why something was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The system refused something.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, with the path.
        action: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The stream is no archive, or ends too early.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It cannot go there, or does not come from there.
    #[error("{path}: {reason}")]
    Refused {
        /// The path, escaped.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// A file was written to while it was copied.
    #[error("{path}: it {how} while it was copied")]
    Changed {
        /// The file, escaped.
        path: String,
        /// `grew`, with what was copied all the same, or `shrank`, after which nothing was copied any more.
        how: &'static str,
    },
    /// The stream ended before its first entry.
    #[error("nothing came")]
    Nothing,
}

impl CopyError {
    pub(crate) fn refused(path: &[u8], reason: &'static str) -> Self {
        Self::Refused {
            path: shown(without_slashes(path)),
            reason,
        }
    }
}

/// Puts the action beside a system error.
pub(crate) trait During<T> {
    fn during(self, action: &str, path: &[u8]) -> Result<T, CopyError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, action: &str, path: &[u8]) -> Result<T, CopyError> {
        self.map_err(|error| CopyError::Io {
            action: format!("{action} {}", shown(path)),
            source: error.into(),
        })
    }
}

/// A path as a message shows it: on one line and without control characters, whoever chose it.
pub(crate) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    text.chars()
        .flat_map(|letter| {
            let escaped = letter.is_control().then(|| letter.escape_default());
            let plain = (!letter.is_control()).then_some(letter);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}
