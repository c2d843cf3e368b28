//! A utility VM: boot, ledger, and the driver that performs what the ledger asks.
//!
//! [`UtilityVm`] joins the three parties: a backend that plugs devices ([`cofferdam_backend`]), the agent inside
//! ([`cofferdam_bridge`]), and the ledger that knows who holds what ([`cofferdam_ledger`]). Only [`driver`] performs
//! steps, and it never holds the ledger's lock while it does.

mod boot;
mod driver;
mod guest;
mod guest_log;
mod stdio;
mod words;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cofferdam_backend::{Backend, BackendError, VmExit};
use cofferdam_bridge::Bridge;
use cofferdam_journal::Journal;
use cofferdam_ledger::Ledger;
use cofferdam_protocol::NULL_CONTAINER_ID;

use crate::stdio::StdioPorts;
pub use crate::{
    boot::{BootError, BootOptions, BootTimes},
    driver::{Driver, StepCause, StepError},
    guest::{Guest, GuestError},
    guest_log::GuestLog,
    stdio::StdioPort,
};

/// How long a VM that was asked to power off may take before it is ended by force.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(10);

/// A running utility VM with an agent that answers.
pub struct UtilityVm {
    backend: Arc<dyn Backend>,
    bridge: Arc<Bridge>,
    driver: Driver,
    log: GuestLog,
    times: BootTimes,
    stdio: StdioPorts,
    containers: AtomicU64,
}

impl UtilityVm {
    /// Starts the backend's VM and waits for its agent.
    ///
    /// # Errors
    /// See [`BootError`]. The VM may be running then; [`Backend::stop`] ends it, or it is kept to be looked at.
    pub async fn boot(backend: Arc<dyn Backend>, options: &BootOptions) -> Result<Arc<Self>, BootError> {
        Self::boot_with(backend, options, None).await
    }

    /// Like [`UtilityVm::boot`], with every step in a journal before it is performed.
    ///
    /// # Errors
    /// As for [`UtilityVm::boot`].
    pub async fn boot_with(
        backend: Arc<dyn Backend>,
        options: &BootOptions,
        journal: Option<Journal>,
    ) -> Result<Arc<Self>, BootError> {
        let booted = boot::boot(&backend, options).await?;
        let ledger = Ledger::new(backend.limits());
        let driver = Driver::new(backend.clone(), booted.bridge.clone(), ledger, journal);
        Ok(Arc::new(Self {
            backend,
            bridge: booted.bridge,
            driver,
            log: booted.log,
            times: booted.times,
            stdio: StdioPorts::new(),
            containers: AtomicU64::new(1),
        }))
    }

    /// The host side.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The agent.
    #[must_use]
    pub fn bridge(&self) -> &Arc<Bridge> {
        &self.bridge
    }

    /// What allocates and releases.
    #[must_use]
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// The guest's last log lines.
    #[must_use]
    pub fn log(&self) -> &GuestLog {
        &self.log
    }

    /// How long the boot took.
    #[must_use]
    pub fn times(&self) -> BootTimes {
        self.times
    }

    /// A container root that no other container of this VM has had: `/run/gcs/c/<n>`, n hexadecimal.
    #[must_use]
    pub fn new_container_root(&self) -> String {
        format!("/run/gcs/c/{:x}", self.containers.fetch_add(1, Ordering::Relaxed))
    }

    /// Listens for one standard stream.
    ///
    /// # Errors
    /// The backend's, when it cannot listen.
    pub async fn open_stdio(&self) -> Result<StdioPort, BackendError> {
        self.stdio.open(self.backend.as_ref()).await
    }

    /// Whether the VM has ended.
    pub async fn is_gone(&self) -> bool {
        self.driver.is_gone().await
    }

    /// How the VM ended, if it has, or does so right after its agent's connection broke.
    pub async fn died(&self) -> Option<VmExit> {
        tokio::time::timeout(driver::DEATH_LIMIT, self.backend.exited())
            .await
            .ok()
    }

    /// Asks the guest to power off, and ends it by force if it does not within its limit. Frees everything the
    /// backend holds. Harmless when repeated.
    ///
    /// # Errors
    /// The backend's, when something of the VM could not be freed.
    pub async fn shut_down(&self) -> Result<VmExit, BackendError> {
        let asked = async {
            // The answer is the end of the connection, so an error here says nothing new.
            let _ = self.bridge.shutdown_graceful(NULL_CONTAINER_ID).await;
            self.backend.exited().await
        };
        if tokio::time::timeout(POWER_OFF_LIMIT, asked).await.is_err() {
            tracing::warn!(
                limit_s = POWER_OFF_LIMIT.as_secs(),
                "the VM did not power off; ending it"
            );
        }
        self.backend.stop().await
    }
}
