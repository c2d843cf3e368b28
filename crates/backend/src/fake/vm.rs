//! What the fake's parts share: its state, its end, its ports, and the course of one step.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
};

use super::{
    FakeOptions, FakeProgram, Fault, FaultPoint, Faults, HostStep, Outcome, ProgramFor, Step,
    containers::{Container, Process},
    guest::GuestMounts,
    host::{HostDevices, Refusal},
};
use crate::{BoxStream, VmExit};

/// What a stream between host and guest holds, in bytes.
const STREAM_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Vm {
    pub(super) options: FakeOptions,
    pub(super) faults: Faults,
    state: Mutex<State>,
    exit: watch::Sender<Option<VmExit>>,
    /// Counts listeners, so that the guest can wait for one.
    listened: watch::Sender<u64>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) started: bool,
    pub(super) devices: HostDevices,
    pub(super) mounts: GuestMounts,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) processes: BTreeMap<u32, Process>,
    pub(super) programs: Vec<(ProgramFor, FakeProgram)>,
    pub(super) log: Option<mpsc::UnboundedSender<Vec<u8>>>,
    pub(super) steps: Vec<Step>,
    pub(super) violations: Vec<String>,
    pub(super) pod_limits: Value,
    listeners: BTreeMap<u32, (u64, mpsc::UnboundedSender<BoxStream>)>,
}

/// Why a step was not done.
#[derive(Debug)]
pub(super) enum StepError {
    Refused(Refusal),
    Gone(VmExit),
}

/// A step under way. Dropped before [`RunningStep::finish`], it was abandoned.
#[derive(Debug)]
#[must_use]
pub(super) struct RunningStep<'a> {
    vm: &'a Vm,
    number: usize,
    fault: Option<Fault>,
}

impl Vm {
    pub(super) fn new(options: FakeOptions) -> Self {
        Self {
            options,
            faults: Faults::default(),
            state: Mutex::default(),
            exit: watch::channel(None).0,
            listened: watch::channel(0).0,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the VM, unless it has ended: everything in it is gone.
    pub(super) fn die(&self, expected: bool, status: &str) {
        let exit = VmExit {
            expected,
            status: status.to_owned(),
            message: String::new(),
            console_tail: Vec::new(),
        };
        let mut state = self.state();
        self.exit.send_if_modified(|now| {
            let first = now.is_none();
            if first {
                *now = Some(exit);
            }
            first
        });
        state.devices.clear();
        state.mounts = GuestMounts::default();
        state.containers.clear();
        state.processes.clear();
        state.listeners.clear();
        state.log = None;
    }

    pub(super) fn exit_now(&self) -> Option<VmExit> {
        self.exit.borrow().clone()
    }

    pub(super) async fn exited(&self) -> VmExit {
        let mut exits = self.exit.subscribe();
        let exit = exits
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|exit| exit.clone());
        exit.expect("invariant: the sender lives in `self`, and waiting ends only when there is an exit")
    }

    /// Runs a part of the guest, until it ends or the VM does.
    pub(super) fn spawn(self: &Arc<Self>, part: impl Future<Output = ()> + Send + 'static) {
        let vm = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = vm.exited() => {}
                () = part => {}
            }
        });
    }

    /// Notes a step and lets the faults have their say before it is done.
    pub(super) async fn begin(
        &self,
        point: FaultPoint,
        request: String,
    ) -> Result<RunningStep<'_>, StepError> {
        let number = {
            let mut state = self.state();
            let number = state.steps.len();
            state.steps.push(Step {
                number,
                point,
                request,
                outcome: Outcome::Pending,
            });
            number
        };
        let mut step = RunningStep {
            vm: self,
            number,
            fault: self.faults.strike(point),
        };
        // A file is the host's own: deleting it needs no VM.
        let needs_vm = point != FaultPoint::Host(HostStep::DeleteFile);
        match step.fault.take() {
            Some(Fault::Fail(message)) => {
                let refusal = Refusal::plain(message);
                step.note(Outcome::Failed(refusal.message.clone()));
                return Err(StepError::Refused(refusal));
            }
            Some(Fault::Die) => self.die(false, "killed by signal 9"),
            Some(Fault::Hang) => self.unless_gone(needs_vm, self.faults.wait_for_release()).await,
            Some(Fault::Delay(time)) => self.unless_gone(needs_vm, tokio::time::sleep(time)).await,
            after @ (Some(Fault::FailAfter(_) | Fault::DieAfter) | None) => step.fault = after,
        }
        match self.exit_now() {
            Some(exit) if needs_vm => Err(StepError::Gone(exit)),
            _ => Ok(step),
        }
    }

    async fn unless_gone(&self, needs_vm: bool, wait: impl Future<Output = ()>) {
        if needs_vm {
            tokio::select! {
                biased;
                _ = self.exited() => {}
                () = wait => {}
            }
        } else {
            wait.await;
        }
    }

    /// Takes a port; `None` if it is taken.
    pub(super) fn add_listener(&self, port: u32, streams: mpsc::UnboundedSender<BoxStream>) -> Option<u64> {
        let mut state = self.state();
        if state.listeners.contains_key(&port) {
            return None;
        }
        let mut token = 0;
        self.listened.send_modify(|count| {
            *count += 1;
            token = *count;
        });
        state.listeners.insert(port, (token, streams));
        Some(token)
    }

    pub(super) fn remove_listener(&self, port: u32, token: u64) {
        let mut state = self.state();
        if state
            .listeners
            .get(&port)
            .is_some_and(|(current, _)| *current == token)
        {
            state.listeners.remove(&port);
        }
    }

    /// The guest dials the host; `None` if nobody listens.
    pub(super) fn dial(&self, port: u32) -> Option<DuplexStream> {
        let (guest, host) = tokio::io::duplex(STREAM_BYTES);
        let state = self.state();
        let (_, listener) = state.listeners.get(&port)?;
        listener.send(Box::new(host)).ok()?;
        Some(guest)
    }

    /// The guest dials the host until somebody listens.
    pub(super) async fn dial_until_answered(&self, port: u32) -> DuplexStream {
        let mut listened = self.listened.subscribe();
        loop {
            if let Some(stream) = self.dial(port) {
                return stream;
            }
            // The sender lives in `self`.
            let _ = listened.changed().await;
        }
    }
}

impl RunningStep<'_> {
    fn note(&self, outcome: Outcome) {
        if let Some(step) = self.vm.state().steps.get_mut(self.number) {
            step.outcome = outcome;
        }
    }

    /// Notes how the step went, and lets the faults have their say after it.
    pub(super) fn finish<T>(mut self, result: Result<T, Refusal>) -> Result<T, StepError> {
        match &result {
            Ok(_) => self.note(Outcome::Done),
            Err(refusal) => {
                self.note(Outcome::Failed(refusal.message.clone()));
                if refusal.violation {
                    let violation = format!("step {}: {}", self.number, refusal.message);
                    self.vm.state().violations.push(violation);
                }
            }
        }
        match self.fault.take() {
            Some(Fault::FailAfter(message)) => Err(StepError::Refused(Refusal::plain(message))),
            Some(Fault::DieAfter) => {
                self.vm.die(false, "killed by signal 9");
                Err(StepError::Gone(
                    self.vm.exit_now().expect("invariant: the VM has just died"),
                ))
            }
            _ => result.map_err(StepError::Refused),
        }
    }
}

impl Drop for RunningStep<'_> {
    fn drop(&mut self) {
        let mut state = self.vm.state();
        if let Some(step) = state.steps.get_mut(self.number)
            && step.outcome == Outcome::Pending
        {
            step.outcome = Outcome::Abandoned;
        }
    }
}
