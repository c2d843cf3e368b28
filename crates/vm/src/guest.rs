//! Who performs the guest's steps: the agent behind the bridge or, in process isolation, this host itself.

use std::io;

use async_trait::async_trait;
use cofferdam_backend::guest_settings;
use cofferdam_bridge::{Bridge, BridgeError};
use cofferdam_ledger::request::GuestRequest;

/// Performs the guest's steps. Every removal is idempotent.
#[async_trait]
pub trait Guest: Send + Sync + 'static {
    /// Performs one step. Safe to call for independent ones at the same time.
    async fn perform(&self, request: &GuestRequest) -> Result<(), GuestError>;

    /// Whether it performs the steps for running containers.
    ///
    /// # Errors
    /// [`GuestError::Unsupported`], or the agent's own word, where it does not.
    fn check_container_mounts(&self) -> Result<(), GuestError> {
        Err(GuestError::Unsupported(
            "mounts cannot be added to a running container without a utility VM".to_owned(),
        ))
    }
}

/// Why a guest's step failed.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The agent refused, or could not be asked.
    #[error("guest: {0}")]
    Bridge(#[from] BridgeError),
    /// The system refused.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, with the path or device.
        action: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is no such step here.
    #[error("{0}")]
    Unsupported(String),
}

impl GuestError {
    /// Whether the guest is gone rather than unwilling.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Bridge(error) if error.is_closed())
    }
}

#[async_trait]
impl Guest for Bridge {
    async fn perform(&self, request: &GuestRequest) -> Result<(), GuestError> {
        let settings = guest_settings(request);
        let done = match request.container() {
            Some(container) => self.modify_container(container, settings).await,
            None => self.modify(settings).await,
        };
        Ok(done?)
    }

    fn check_container_mounts(&self) -> Result<(), GuestError> {
        Ok(Bridge::check_container_mounts(self)?)
    }
}
