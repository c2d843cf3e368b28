//! Performs what the ledger asks, and reports what became of it.
//!
//! The ledger's lock is held to ask and to report, never while a step runs, so independent devices move in parallel.
//! Every step runs in a task of its own: a caller that goes away leaves it running, and its outcome is reported all
//! the same. Every step has a limit (the bridge's or the backend's), so every wait for one ends.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cofferdam_backend::{Backend, BackendError};
use cofferdam_journal::{Journal, ManagedFile, StepNumber};
use cofferdam_ledger::{
    Lease, Ledger, Next, Request, Step, StepFailure, StepToken,
    request::{GuestRequest, HostRequest},
};
use tokio::sync::watch;

use crate::{
    guest::{Guest, GuestError},
    words::described,
};

/// How long after the agent's connection broke the hypervisor's end may be noticed.
pub(crate) const DEATH_LIMIT: Duration = Duration::from_secs(3);

/// The ledger of one VM, and the parties that perform its steps. Cheap to clone; clones share the ledger.
#[derive(Clone)]
pub struct Driver {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn Backend>,
    guest: Arc<dyn Guest>,
    ledger: Mutex<Ledger>,
    journal: Option<Journal>,
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
    #[error("{0}")]
    Guest(#[from] GuestError),
    /// What is about to be taken could not be written down, so it was not taken.
    #[error("noting it in the journal: {0}")]
    Journal(#[source] io::Error),
    /// Whoever performed it ended without a word.
    #[error("the step was abandoned")]
    Abandoned,
}

impl Driver {
    /// Drives a ledger. With a journal, every step is in it before it is performed.
    #[must_use]
    pub fn new(
        backend: Arc<dyn Backend>,
        guest: Arc<dyn Guest>,
        ledger: Ledger,
        journal: Option<Journal>,
    ) -> Self {
        let (outcomes, _) = watch::channel(0);
        Self {
            inner: Arc::new(Inner {
                backend,
                guest,
                ledger: Mutex::new(ledger),
                journal,
                outcomes,
            }),
        }
    }

    /// The host side.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.inner.backend
    }

    /// Whether the guest can change the mounts of a running container, to be asked before anything is reserved.
    ///
    /// # Errors
    /// The guest's word that it cannot.
    pub fn check_container_mounts(&self) -> Result<(), GuestError> {
        self.inner.guest.check_container_mounts()
    }

    /// Notes that a file is about to be taken that is deleted on release.
    ///
    /// # Errors
    /// [`StepCause::Journal`]; the file must not be taken then.
    pub fn note_managed(&self, file: ManagedFile) -> Result<(), StepCause> {
        match &self.inner.journal {
            Some(journal) => journal.manages(file).map_err(StepCause::Journal),
            None => Ok(()),
        }
    }

    /// Notes that such a file stays.
    pub fn note_kept(&self, file: ManagedFile) {
        if let Some(journal) = &self.inner.journal
            && let Err(error) = journal.keeps(file)
        {
            tracing::warn!(%error, journal = %journal.path().display(), "noting that a file is kept");
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
        self.leave(lease).await
    }

    /// Like [`Driver::release`], for an allocation that is being undone: a file that would be deleted on release is
    /// kept, since its container never was.
    ///
    /// # Errors
    /// As for [`Driver::release`].
    pub async fn abandon(&self, lease: Lease) -> Result<(), StepFailure> {
        if self.ledger().abandon(lease).is_err() {
            return Ok(());
        }
        self.leave(lease).await
    }

    async fn leave(&self, lease: Lease) -> Result<(), StepFailure> {
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
        if gives_back_to_the_vm(request) && !is_the_hosts(request) && self.is_gone().await {
            return Ok(());
        }
        tracing::debug!(step = %described(request), "performing");
        let noted = self.note(request)?;
        let result = match request {
            Request::Host(request) => self.backend.perform(request).await.map_err(StepCause::Host),
            Request::Guest(request) => self.guest.perform(request).await.map_err(StepCause::Guest),
        };
        self.note_end(noted, &result);
        match result {
            Err(cause) if gives_back_to_the_vm(request) && self.is_dying(&cause).await => Ok(()),
            result => result,
        }
    }

    /// Writes down what is about to be done. What gives something back is done all the same where that fails: a full
    /// disk must not keep anybody from letting go.
    fn note(&self, request: &Request) -> Result<Option<StepNumber>, StepCause> {
        let Some(journal) = &self.journal else {
            return Ok(None);
        };
        match journal.begin(request) {
            Ok(number) => Ok(Some(number)),
            Err(error) if gives_back(request) => {
                tracing::warn!(%error, step = %described(request), "noting a step");
                Ok(None)
            }
            Err(error) => Err(StepCause::Journal(error)),
        }
    }

    /// A step whose end is not in the journal counts as one that may have taken effect.
    fn note_end(&self, noted: Option<StepNumber>, result: &Result<(), StepCause>) {
        let (Some(journal), Some(number)) = (&self.journal, noted) else {
            return;
        };
        let failure = result.as_ref().err().map(ToString::to_string);
        if let Err(error) = journal.end(number, failure) {
            tracing::warn!(%error, number, "noting a step's end");
        }
    }

    /// Whether a step failed because the VM is ending: its streams break before the hypervisor's end is noticed.
    async fn is_dying(&self, cause: &StepCause) -> bool {
        match cause {
            StepCause::Host(BackendError::Gone(_)) => true,
            StepCause::Guest(error) if error.is_closed() => {
                tokio::time::timeout(DEATH_LIMIT, self.backend.exited())
                    .await
                    .is_ok()
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

/// Whether a request takes nothing.
fn gives_back(request: &Request) -> bool {
    gives_back_to_the_vm(request) || matches!(request, Request::Host(HostRequest::DeleteFile { .. }))
}

/// Whether a request frees something of the host that does not end with the VM: a directory is held by the server of
/// shares, which is in this process.
fn is_the_hosts(request: &Request) -> bool {
    matches!(request, Request::Host(HostRequest::RemoveShare { .. }))
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
                | GuestRequest::RemoveContainerMount { .. }
        ),
    }
}
