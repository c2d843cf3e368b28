//! One process of a container, its init or a further one, and the state it is in.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use cofferdam_container::{Executed, Handle, RunError, Running};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{Endpoints, PodError, endpoints::StdinGate, logger::Logger};

/// How long an exit is held back for output that is still on its way. A reader that does not read makes no exit wait
/// for longer.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// How long a process that is deleted waits for its output to be read.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How long the guest may take to say that a process is over once its streams are closed.
const CUT_LIMIT: Duration = Duration::from_secs(5);

/// The status of a process whose VM went away: killed.
const LOST: u8 = 128 + 9;

/// Which process: a container's init, or a further one of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessName {
    /// The container.
    pub container: String,
    /// The further process; `None` for the init.
    pub exec: Option<String>,
}

impl ProcessName {
    /// The container's init.
    pub fn init(container: impl Into<String>) -> Self {
        Self {
            container: container.into(),
            exec: None,
        }
    }

    /// A further process.
    pub fn exec(container: impl Into<String>, exec: impl Into<String>) -> Self {
        Self {
            container: container.into(),
            exec: Some(exec.into()),
        }
    }
}

impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exec {
            None => write!(f, "container {}", self.container),
            Some(exec) => write!(f, "process {exec} of container {}", self.container),
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 plus the signal's number.
    pub status: u8,
    /// When.
    pub at: SystemTime,
    /// Whether nobody saw it end: its VM went away, and the status is that of a kill.
    pub lost: bool,
}

impl Exit {
    pub(crate) fn now(status: u8) -> Self {
        Self {
            status,
            at: SystemTime::now(),
            lost: false,
        }
    }

    fn lost() -> Self {
        Self {
            lost: true,
            ..Self::now(LOST)
        }
    }
}

/// How long an exit waits for output that is still on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// A moment: somebody may come later to read it, or nobody.
    Grace,
    /// Until it is out: whoever waits for the exit is who reads it.
    Endless,
}

/// The state of a process. See the crate's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It has not been started.
    Created,
    /// It is being started.
    Starting,
    /// It runs.
    Running,
    /// It is a container's init that stands still, as does everything in the container.
    Paused,
    /// It has ended, or could not be started.
    Stopped(Exit),
}

impl Status {
    /// In words, after the process's name.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Created => "is created",
            Self::Starting => "is being started",
            Self::Running => "is running",
            Self::Paused => "is paused",
            Self::Stopped(_) => "has stopped",
        }
    }
}

/// A process that runs, of either kind.
pub(crate) enum Live {
    Init(Running),
    Exec(Executed),
}

impl Live {
    pub(crate) fn handle(&self) -> Handle {
        match self {
            Self::Init(running) => running.handle(),
            Self::Exec(executed) => executed.handle(),
        }
    }

    async fn ended(&self) -> Result<u8, RunError> {
        match self {
            Self::Init(running) => running.ended().await,
            Self::Exec(executed) => executed.ended().await,
        }
    }

    async fn drained(&mut self) {
        match self {
            Self::Init(running) => {
                if let Err(error) = running.drained().await {
                    tracing::debug!(%error, "the guest's word that the container is over");
                }
            }
            Self::Exec(executed) => executed.drained().await,
        }
    }

    fn cut_off(&mut self) {
        match self {
            Self::Init(running) => running.cut_off(),
            Self::Exec(executed) => executed.cut_off(),
        }
    }
}

/// What is held for a process that runs.
#[derive(Default)]
pub(crate) struct Held {
    /// Its input, which ends with it.
    pub(crate) gate: StdinGate,
    /// Who takes its output.
    pub(crate) logger: Option<Logger>,
}

/// A process in any state.
pub(crate) struct Process {
    pub(crate) name: ProcessName,
    pub(crate) endpoints: Endpoints,
    status: watch::Sender<Status>,
    started: OnceLock<SystemTime>,
    parts: Mutex<Parts>,
    /// Its output is waited for no longer.
    cut_off: Notify,
}

#[derive(Default)]
struct Parts {
    handle: Option<Handle>,
    gate: Option<StdinGate>,
    logger: Option<Logger>,
    attending: Option<JoinHandle<()>>,
    /// The terminal's size, if it was told before there was one.
    size: Option<(u16, u16)>,
}

impl Process {
    pub(crate) fn new(name: ProcessName, endpoints: Endpoints) -> Self {
        Self {
            name,
            endpoints,
            status: watch::Sender::new(Status::Created),
            started: OnceLock::new(),
            parts: Mutex::default(),
            cut_off: Notify::new(),
        }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        // Each member is replaced as a whole.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// It has just begun to run, which it does once only.
    pub(crate) fn has_started(&self) {
        let _ = self.started.set(SystemTime::now());
    }

    /// When it began to run, if it ever has.
    pub(crate) fn started_at(&self) -> Option<SystemTime> {
        self.started.get().copied()
    }

    /// Moves from Created to Starting; only one caller can.
    pub(crate) fn begin(&self) -> Result<Option<(u16, u16)>, PodError> {
        if self.turns(Status::Created, Status::Starting) {
            return Ok(self.parts().size);
        }
        Err(self.unfit("only a process that was never started can be started"))
    }

    /// The refusal of something that its state does not allow.
    pub(crate) fn unfit(&self, wanted: &'static str) -> PodError {
        PodError::State {
            name: self.name.clone(),
            state: self.status().in_words(),
            wanted,
        }
    }

    /// From Starting, or from Created, to Stopped without having run.
    pub(crate) fn never_ran(&self, status: u8) -> Exit {
        let exit = Exit::now(status);
        self.status.send_replace(Status::Stopped(exit));
        exit
    }

    /// From Starting to Running. Once it has ended, `ended` is told, and its output read on.
    pub(crate) fn runs(
        self: &std::sync::Arc<Self>,
        mut live: Live,
        held: Held,
        patience: Patience,
        ended: impl FnOnce(Exit) + Send + 'static,
    ) {
        let mut parts = self.parts();
        parts.handle = Some(live.handle());
        parts.gate = Some(held.gate);
        parts.logger = held.logger;
        self.status.send_replace(Status::Running);
        let process = self.clone();
        parts.attending = Some(tokio::spawn(async move {
            let exit = match live.ended().await {
                Ok(status) => Exit::now(status),
                Err(error) => {
                    tracing::warn!(%error, "{} is taken for killed", process.name);
                    Exit::lost()
                }
            };
            let drained = match patience {
                Patience::Grace => timeout(DRAIN_GRACE, live.drained()).await.is_ok(),
                Patience::Endless => {
                    live.drained().await;
                    true
                }
            };
            ended(exit);
            process.status.send_replace(Status::Stopped(exit));
            if drained {
                return;
            }
            tokio::select! {
                () = live.drained() => return,
                () = process.cut_off.notified() => {}
            }
            live.cut_off();
            live.drained().await;
        }));
    }

    /// From one state to another, unless it is in a third by now.
    pub(crate) fn turns(&self, from: Status, to: Status) -> bool {
        self.status.send_if_modified(|status| {
            let does = *status == from;
            if does {
                *status = to;
            }
            does
        })
    }

    /// Waits until it has ended.
    pub(crate) async fn exited(&self) -> Exit {
        let mut changes = self.status.subscribe();
        loop {
            if let Status::Stopped(exit) = *changes.borrow_and_update() {
                return exit;
            }
            if changes.changed().await.is_err() {
                // The sender is ours, and we are borrowed.
                return Exit::lost();
            }
        }
    }

    /// What signals it, while it runs.
    pub(crate) fn handle(&self) -> Result<Handle, PodError> {
        match self.status() {
            Status::Running | Status::Paused => self.parts().handle.clone(),
            _ => None,
        }
        .ok_or_else(|| PodError::Finished(self.name.clone()))
    }

    /// Gives its terminal a size, now or once it has one.
    pub(crate) async fn resize(&self, rows: u16, columns: u16) -> Result<(), PodError> {
        if !self.endpoints.terminal {
            return Err(PodError::NoTerminal(self.name.clone()));
        }
        match self.status() {
            Status::Created | Status::Starting => self.parts().size = Some((rows, columns)),
            Status::Running | Status::Paused => self.handle()?.resize(rows, columns).await?,
            // A terminal that has just gone is nobody's mistake.
            Status::Stopped(_) => {}
        }
        Ok(())
    }

    /// Ends its input once everything that was sent has been read.
    pub(crate) fn close_stdin(&self) {
        self.parts().gate = None;
    }

    /// Waits for its output to be read, as long as that may take, and lets go of its streams.
    pub(crate) async fn finish(&self) {
        let (attending, gate, logger) = {
            let mut parts = self.parts();
            (parts.attending.take(), parts.gate.take(), parts.logger.take())
        };
        drop(gate);
        if let Some(attending) = attending {
            self.drain(attending).await;
        }
        if let Some(logger) = logger {
            logger.end().await;
        }
    }

    async fn drain(&self, mut attending: JoinHandle<()>) {
        if timeout(DRAIN_LIMIT, &mut attending).await.is_ok() {
            return;
        }
        tracing::warn!(
            limit_s = DRAIN_LIMIT.as_secs(),
            "nobody reads the output of {}: it is lost",
            self.name
        );
        self.cut_off.notify_one();
        if timeout(CUT_LIMIT, &mut attending).await.is_err() {
            tracing::warn!("the guest does not say that {} is over", self.name);
            attending.abort();
        }
    }
}
