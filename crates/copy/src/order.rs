//! What the agent is asked to do.

use serde::{Deserialize, Serialize};

use crate::Target;

/// One copy, as the command tells it to the agent. The stream is the agent's standard input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Order {
    /// Write what is at `path` as an archive.
    Out {
        /// In the container.
        path: String,
        /// Whether a symbolic link there is followed.
        follow: bool,
    },
    /// Make files of an archive.
    In {
        /// Where, in the container.
        path: String,
        /// The path the archive was made of; absent where it is whatever the user gave.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// Whether owners, devices and attributes are the archive's.
        keep: bool,
    },
}

impl Order {
    /// Where an archive goes, if it is unpacked.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        match self {
            Self::Out { .. } => None,
            Self::In {
                path,
                source: Some(source),
                ..
            } => Some(Target::new(path.as_bytes(), source.as_bytes())),
            Self::In { path, .. } => Some(Target::archive(path.as_bytes())),
        }
    }
}
