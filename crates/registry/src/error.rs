//! Why a registry gave no image.

use std::{error::Error, path::PathBuf};

use cofferdam_store::StoreError;
use oci_client::errors::{OciDistributionError, OciErrorCode};

/// Why a registry gave no image.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A name without a registry.
    #[error(
        "`{0}` names no registry: say REGISTRY/{0}, or take it from a file with `cofferdam image import`"
    )]
    NoHost(String),
    /// The registry does not know the image, or does not show it to strangers.
    #[error("{0}: the registry has no such image, or shows it only to others")]
    NotFound(String),
    /// The registry wants to know who asks.
    #[error(
        "{image}: the registry refuses access: {reason}; `docker login {host}` or --creds USER:PASSWORD says who you are"
    )]
    Unauthorized {
        /// The image.
        image: String,
        /// The registry.
        host: String,
        /// Its words.
        reason: String,
    },
    /// Anything else a registry or the way to it may say.
    #[error("{what}: {reason}")]
    Failed {
        /// What was being fetched.
        what: String,
        /// All causes, the outermost first.
        reason: String,
    },
    /// A certificate or the credentials could not be read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The documents are wrong.
    #[error(transparent)]
    Documents(#[from] StoreError),
    /// No thread or socket could be had.
    #[error("could not start fetching: {0}")]
    Start(#[from] std::io::Error),
}

impl RegistryError {
    /// What `oci-client` says, as one of ours.
    pub(crate) fn of(what: &str, host: &str, error: &OciDistributionError) -> Self {
        let code = match error {
            OciDistributionError::RegistryError { envelope, .. } => {
                envelope.errors.first().map(|error| &error.code)
            }
            _ => None,
        };
        match (error, code) {
            (OciDistributionError::ImageManifestNotFoundError(_), _)
            | (_, Some(OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound)) => {
                Self::NotFound(what.to_owned())
            }
            (
                OciDistributionError::UnauthorizedError { .. }
                | OciDistributionError::AuthenticationFailure(_),
                _,
            )
            | (_, Some(OciErrorCode::Unauthorized | OciErrorCode::Denied)) => Self::Unauthorized {
                image: what.to_owned(),
                host: host.to_owned(),
                reason: chain(error),
            },
            _ => Self::Failed {
                what: what.to_owned(),
                reason: chain(error),
            },
        }
    }
}

/// An error and its causes in one line; what a cause repeats is said once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
