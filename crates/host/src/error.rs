//! What can go wrong on the host.

use std::{io, path::PathBuf};

use cofferdam_backend::BackendError;
use cofferdam_mounting::MountError;
use cofferdam_rootfs::RootfsError;
use cofferdam_vm::GuestError;

/// Why something was not done on the host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The system refused something.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, with the path or device.
        action: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A mount, or what leads to it.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The container's root filesystem, or who is to run in it.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The image cannot be attached.
    #[error("{path}: {problem}", path = path.display())]
    Image {
        /// The image or device.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Something still uses it.
    #[error("{what} is in use: {holder}")]
    Busy {
        /// What cannot be had, or cannot be let go.
        what: String,
        /// Who holds it.
        holder: String,
    },
    /// Another program refused; its own words.
    #[error("{action}: {reason}")]
    Refused {
        /// What was asked of it.
        action: String,
        /// Its words.
        reason: String,
    },
    /// Another program did not answer in time.
    #[error("{action}: not done within {limit_ms} ms")]
    TimedOut {
        /// What was asked of it.
        action: String,
        /// The limit that passed.
        limit_ms: u64,
    },
    /// A program that is needed is not on the host.
    #[error("{program} was not found: {remedy}")]
    Missing {
        /// The program.
        program: String,
        /// What to install.
        remedy: &'static str,
    },
    /// There is no such thing without a VM.
    #[error("{0}")]
    Unsupported(String),
}

/// Result of one step.
pub type Result<T, E = HostError> = std::result::Result<T, E>;

/// Puts the action beside a system error.
pub(crate) trait During<T> {
    fn during(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> During<T> for std::result::Result<T, E> {
    fn during(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| HostError::Io {
            action: action(),
            source: error.into(),
        })
    }
}

/// An error's action and the system's reason. Those that have none get the kind that comes nearest.
fn action_and_source(error: HostError) -> (String, io::Error) {
    match error {
        HostError::Io { action, source }
        | HostError::Mount(MountError::Io { action, source })
        | HostError::Rootfs(RootfsError::Io { action, source }) => (action, source),
        HostError::Rootfs(error) => (
            "preparing the root filesystem".to_owned(),
            io::Error::new(io::ErrorKind::InvalidInput, error.to_string()),
        ),
        HostError::Mount(MountError::Busy { what, holder }) | HostError::Busy { what, holder } => {
            (what, io::Error::new(io::ErrorKind::ResourceBusy, holder))
        }
        HostError::Mount(MountError::Invalid(reason)) => (
            "mounting".to_owned(),
            io::Error::new(io::ErrorKind::InvalidInput, reason),
        ),
        HostError::Mount(MountError::Verity { device, problem }) => (
            format!("dm-verity of {device}"),
            io::Error::new(io::ErrorKind::InvalidData, problem),
        ),
        HostError::Refused { action, reason } => (action, io::Error::other(reason)),
        HostError::TimedOut { action, limit_ms } => {
            let reason = format!("not done within {limit_ms} ms");
            (action, io::Error::new(io::ErrorKind::TimedOut, reason))
        }
        HostError::Image { path, problem } => (
            path.display().to_string(),
            io::Error::new(io::ErrorKind::InvalidData, problem),
        ),
        HostError::Missing { program, remedy } => (
            format!("{program} was not found"),
            io::Error::new(io::ErrorKind::NotFound, remedy),
        ),
        HostError::Unsupported(reason) => (reason, io::ErrorKind::Unsupported.into()),
    }
}

impl From<HostError> for BackendError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Unsupported(reason) => Self::Unsupported(reason),
            HostError::Refused { action, reason } => Self::Refused { action, reason },
            HostError::TimedOut { action, limit_ms } => Self::TimedOut { action, limit_ms },
            error => {
                let (action, source) = action_and_source(error);
                Self::Io { action, source }
            }
        }
    }
}

impl From<HostError> for GuestError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Unsupported(reason) => Self::Unsupported(reason),
            error => {
                let (action, source) = action_and_source(error);
                Self::Io { action, source }
            }
        }
    }
}
