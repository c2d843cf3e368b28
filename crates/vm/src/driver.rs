//! Performs what the ledger asks, and reports what became of it.
//!
//! The ledger's lock is held to ask and to report, never while a step runs, so independent devices move in parallel.
//! Every step runs in a task of its own: a caller that goes away leaves it running, and its outcome is reported all
//! the same. Every step has a limit (the bridge's or the backend's), so every wait for one ends.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cofferdam_backend::{Backend, BackendError, guest_settings};
use cofferdam_bridge::{Bridge, BridgeError};
use cofferdam_ledger::{
    Lease, Ledger, Next, Request, Step, StepFailure, StepToken,
    request::{GuestRequest, HostRequest},
};
use tokio::sync::watch;

/// How long after the agent's connection broke the hypervisor's end may be noticed.
pub(crate) const DEATH_LIMIT: Duration = Duration::from_secs(3);

/// The ledger of one VM, and the parties that perform its steps. Cheap to clone; clones share the ledger.
#[derive(Clone)]
pub struct Driver {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn Backend>,
    bridge: Arc<Bridge>,
    ledger: Mutex<Ledger>,
    /// Changes with every reported outcome: who waits for another's step asks again then.
    outcomes: watch::Sender<u64>,
}

/// A step that failed: what was asked, of whom, and that party's own reason.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", described(.request))]
pub struct StepError {
    /// What was asked.
    pub request: Request,
    /// The reason.
    #[source]
    pub cause: StepCause,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepCause {
    /// The host refused.
    #[error("host: {0}")]
    Host(#[from] BackendError),
    /// The guest refused.
    #[error("guest: {0}")]
    Guest(#[from] BridgeError),
    /// Whoever performed it ended without a word.
    #[error("the step was abandoned")]
    Abandoned,
}

impl Driver {
    pub(crate) fn new(backend: Arc<dyn Backend>, bridge: Arc<Bridge>) -> Self {
        let ledger = Mutex::new(Ledger::new(backend.limits()));
        let (outcomes, _) = watch::channel(0);
        Self {
            inner: Arc::new(Inner {
                backend,
                bridge,
                ledger,
                outcomes,
            }),
        }
    }

    /// The ledger, locked. Nothing is awaited while it is held.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.inner.ledger()
    }

    /// Attaches and mounts what a lease stands for, or shares the outcome of whoever does.
    ///
    /// # Errors
    /// The failure of the step, also where another lease's step failed. The lease is to be released then.
    pub async fn acquire(&self, lease: Lease) -> Result<(), StepFailure> {
        let mut outcomes = self.inner.outcomes.subscribe();
        loop {
            let next = self.ledger().next(lease);
            match next {
                // Its failure, if it fails, is what the ledger says next.
                Next::Perform(step) => drop(self.perform(step).await),
                Next::Wait => wait(&mut outcomes).await,
                Next::Ready | Next::Gone => return Ok(()),
                Next::Failed(failure) => return Err(failure),
            }
        }
    }

    /// Gives back what a lease stands for: nothing if others hold it, else it is unmounted, ejected and detached.
    /// Harmless for a lease that has been released. After an error it can be called again, and goes on with the step
    /// that failed.
    ///
    /// # Errors
    /// The failure of the step.
    pub async fn release(&self, lease: Lease) -> Result<(), StepFailure> {
        if self.ledger().release(lease).is_err() {
            return Ok(());
        }
        let mut outcomes = self.inner.outcomes.subscribe();
        loop {
            let next = self.ledger().next(lease);
            match next {
                Next::Perform(step) => self.perform(step).await?,
                Next::Wait => wait(&mut outcomes).await,
                Next::Gone | Next::Ready => return Ok(()),
                Next::Failed(failure) => return Err(failure),
            }
        }
    }

    pub(crate) async fn is_gone(&self) -> bool {
        self.inner.is_gone().await
    }

    async fn perform(&self, step: Step) -> Result<(), StepFailure> {
        let report = Report {
            inner: self.inner.clone(),
            token: step.token,
            request: Some(step.request.clone()),
        };
        let task = tokio::spawn(async move {
            let result = report.inner.perform(&step.request).await;
            report.done(result)
        });
        task.await.unwrap_or_else(|error| Err(Arc::new(error)))
    }
}

async fn wait(outcomes: &mut watch::Receiver<u64>) {
    // The sender lives as long as the driver.
    let _ = outcomes.changed().await;
}

impl Inner {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // The ledger never panics half way through a change.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn perform(&self, request: &Request) -> Result<(), StepCause> {
        if gives_back_to_the_vm(request) && self.is_gone().await {
            return Ok(());
        }
        tracing::debug!(step = %described(request), "performing");
        let result = match request {
            Request::Host(request) => self.backend.perform(request).await.map_err(StepCause::Host),
            Request::Guest(request) => self
                .bridge
                .modify(guest_settings(request))
                .await
                .map_err(StepCause::Guest),
        };
        match result {
            Err(cause) if gives_back_to_the_vm(request) && self.is_dying(&cause).await => Ok(()),
            result => result,
        }
    }

    /// Whether a step failed because the VM is ending: its streams break before the hypervisor's end is noticed.
    async fn is_dying(&self, cause: &StepCause) -> bool {
        match cause {
            StepCause::Host(BackendError::Gone(_)) => true,
            StepCause::Guest(error) if error.is_closed() => {
                tokio::time::timeout(DEATH_LIMIT, self.backend.exited()).await.is_ok()
            }
            _ => self.is_gone().await,
        }
    }

    /// Whether the VM has ended: then all it held is free.
    async fn is_gone(&self) -> bool {
        tokio::select! {
            biased;
            _ = self.backend.exited() => true,
            () = std::future::ready(()) => false,
        }
    }
}

/// A step of which the ledger waits for the outcome. Dropped without one, it reports that.
struct Report {
    inner: Arc<Inner>,
    token: StepToken,
    request: Option<Request>,
}

impl Report {
    fn done(mut self, result: Result<(), StepCause>) -> Result<(), StepFailure> {
        self.report(result)
    }

    fn report(&mut self, result: Result<(), StepCause>) -> Result<(), StepFailure> {
        let Some(request) = self.request.take() else {
            return Ok(());
        };
        let result = result.map_err(|cause| {
            let error = StepError { request, cause };
            tracing::info!("{error}");
            Arc::new(error) as StepFailure
        });
        if let Err(stale) = self.inner.ledger().outcome(&self.token, result.clone()) {
            tracing::error!(token = ?self.token, %stale, "an outcome nobody waits for");
        }
        self.inner
            .outcomes
            .send_modify(|count| *count = count.wrapping_add(1));
        result
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        drop(self.report(Err(StepCause::Abandoned)));
    }
}

/// Whether a request takes something away from the VM. Such a step is done once the VM is gone.
fn gives_back_to_the_vm(request: &Request) -> bool {
    match request {
        Request::Host(request) => matches!(
            request,
            HostRequest::DetachScsi { .. }
                | HostRequest::DetachVpmem { .. }
                | HostRequest::RemoveShare { .. }
        ),
        Request::Guest(request) => matches!(
            request,
            GuestRequest::UnmountScsi { .. }
                | GuestRequest::EjectScsi { .. }
                | GuestRequest::UnmountVpmem { .. }
                | GuestRequest::UnmountShare { .. }
                | GuestRequest::RemoveCombinedLayers { .. }
        ),
    }
}

/// A request in words, with its device and its paths.
fn described(request: &Request) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| match request {
        Request::Host(request) => described_host(request, f),
        Request::Guest(request) => described_guest(request, f),
    })
}

fn described_host(request: &HostRequest, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match request {
        HostRequest::AttachScsi { address, path, .. } => {
            write!(f, "attaching {} as {address}", path.display())
        }
        HostRequest::DetachScsi { address } => write!(f, "detaching {address}"),
        HostRequest::AttachVpmem { index, path } => {
            write!(f, "attaching {} as VPMEM {index}", path.display())
        }
        HostRequest::DetachVpmem { index } => write!(f, "detaching VPMEM {index}"),
        HostRequest::AddShare { share, path, .. } => write!(f, "sharing {} as share {share}", path.display()),
        HostRequest::RemoveShare { share } => write!(f, "withdrawing share {share}"),
        HostRequest::DeleteFile { path } => write!(f, "deleting {}", path.display()),
    }
}

fn described_guest(request: &GuestRequest, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match request {
        GuestRequest::MountScsi {
            address, guest_path, ..
        } => write!(f, "mounting {address} on {guest_path}"),
        GuestRequest::UnmountScsi {
            address, guest_path, ..
        } => {
            write!(f, "unmounting {address} from {guest_path}")
        }
        GuestRequest::EjectScsi { address } => write!(f, "ejecting {address}"),
        GuestRequest::MountVpmem { index, guest_path } => write!(f, "mounting VPMEM {index} on {guest_path}"),
        GuestRequest::UnmountVpmem { index, guest_path } => {
            write!(f, "unmounting VPMEM {index} from {guest_path}")
        }
        GuestRequest::MountShare {
            share, guest_path, ..
        } => write!(f, "mounting share {share} on {guest_path}"),
        GuestRequest::UnmountShare {
            share, guest_path, ..
        } => {
            write!(f, "unmounting share {share} from {guest_path}")
        }
        GuestRequest::CombineLayers { root, layers, .. } => {
            write!(f, "combining {} layers at {root}", layers.len())
        }
        GuestRequest::RemoveCombinedLayers { root } => write!(f, "removing the combined layers at {root}"),
    }
}
