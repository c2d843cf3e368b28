//! A fake VM that injects faults, for tests of everything above the backend.
//!
//! [`FakeBackend`] is a [`Backend`] whose devices are a table in memory, with a fake guest that dials the bridge
//! port and speaks the guest protocol for real. Both sides refuse what a hypervisor and a kernel would refuse, and
//! note as a *violation* what the layers above must never ask for, whatever fails: a disk pulled out while mounted,
//! a path mounted twice, a layer unmounted below its overlay. A test ends with no violations, no devices and no
//! mounts.
//!
//! [`Faults`] makes any step fail, hang, take its time or kill the VM, by kind of step and by count.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use cofferdam_backend::{Backend, fake::{FakeBackend, FakeOptions, FaultPoint, GuestStep}};
//!
//! let vm = FakeBackend::new(FakeOptions::default());
//! vm.faults().fail(FaultPoint::Guest(GuestStep::MountScsi), 2, "no space left on device");
//! let mut bridge_port = vm.listen(cofferdam_protocol::ports::BRIDGE).await?;
//! vm.start().await?;
//! let _stream = bridge_port.accept().await?; // give it to the bridge, allocate, release …
//! assert!(vm.guest_mounts().is_empty() && vm.host_devices().is_empty());
//! assert_eq!(vm.violations(), [""; 0]);
//! # Ok(())
//! # }
//! ```

mod agent;
mod container_mounts;
mod containers;
mod control;
mod faults;
mod guest;
mod host;
mod program;
mod steps;
mod vm;

use std::{collections::BTreeMap, io, sync::Arc};

use async_trait::async_trait;
use cofferdam_ledger::{address::Limits, request::HostRequest};
use tokio::sync::mpsc;

pub use self::{
    container_mounts::ContainerMounts,
    faults::{Fault, FaultPoint, Faults},
    guest::{GuestMount, MountSource},
    program::{FakeProgram, ProgramFor},
    steps::{GuestStep, HostStep, Outcome, Step},
};
use self::{
    host::Refusal,
    vm::{StepError, Vm},
};
use crate::{Backend, BackendError, BoxListener, BoxStream, Devices, Listener, VmExit};

/// How a fake VM is made.
#[derive(Debug, Clone, Default)]
pub struct FakeOptions {
    /// How many devices it holds.
    pub limits: Limits,
    /// Refuse to plug in files and directories that do not exist.
    pub require_paths: bool,
    /// A guest that does not know mounts of running containers.
    pub without_container_mounts: bool,
}

/// A fake VM. Clones are the same VM.
#[derive(Debug, Clone)]
pub struct FakeBackend {
    vm: Arc<Vm>,
}

impl FakeBackend {
    /// A VM that has not started.
    pub fn new(options: FakeOptions) -> Self {
        Self {
            vm: Arc::new(Vm::new(options)),
        }
    }

    /// The VM's faults.
    pub fn faults(&self) -> &Faults {
        &self.vm.faults
    }

    /// Processes started from now on run `program` where `which` covers them. The most exact wins, then the latest.
    /// Without any, every process exits with 0 at once.
    pub fn set_program(&self, which: ProgramFor, program: FakeProgram) {
        self.vm.state().programs.push((which, program));
    }

    /// Kills the VM, as if its process had been killed.
    pub fn kill_vm(&self) {
        self.vm.die(false, "killed by signal 9");
    }

    /// The guest writes `text` to its log stream, if the host listened for it at boot.
    pub fn guest_logs(&self, text: &str) {
        if let Some(log) = &self.vm.state().log {
            // A host that has stopped reading the log misses it.
            let _ = log.send(text.as_bytes().to_vec());
        }
    }

    /// Every mount of the guest, by path.
    pub fn guest_mounts(&self) -> BTreeMap<String, GuestMount> {
        self.vm.state().mounts.0.clone()
    }

    /// The mounts that were brought into a container while it runs, by destination. None once it has ended.
    pub fn container_mounts(&self, container_id: &str) -> ContainerMounts {
        self.vm.state().container_mounts(container_id)
    }

    /// The limits a container is under: those of its spec, and what was changed since.
    pub fn container_limits(&self, container_id: &str) -> Option<serde_json::Value> {
        let state = self.vm.state();
        let container = state.containers.get(container_id)?;
        Some(container.controlled.limits.clone())
    }

    /// The limits of all containers together; `null` while there are none.
    pub fn pod_limits(&self) -> serde_json::Value {
        self.vm.state().pod_limits.clone()
    }

    /// Whether a container stands still.
    pub fn is_paused(&self, container_id: &str) -> bool {
        let state = self.vm.state();
        let container = state.containers.get(container_id);
        container.is_some_and(|container| container.controlled.frozen)
    }

    /// Kills a process of a container for want of memory: its first one, or (`init` is `false`) another. Whether
    /// there was such a process.
    pub fn run_out_of_memory(&self, container_id: &str, init: bool) -> bool {
        self.vm.state().run_out_of_memory(container_id, init).is_ok()
    }

    /// Containers the guest has state of.
    pub fn guest_containers(&self) -> Vec<String> {
        self.vm.state().containers.keys().cloned().collect()
    }

    /// What is plugged in. Nothing when the VM is gone.
    pub fn host_devices(&self) -> Devices {
        self.vm.state().devices.devices()
    }

    /// How many devices and shares have been added, all told.
    pub fn attach_count(&self) -> u64 {
        self.vm.state().devices.attach_count
    }

    /// How many devices and shares have been removed, all told; not those that went with the VM.
    pub fn detach_count(&self) -> u64 {
        self.vm.state().devices.detach_count
    }

    /// Every rule broken so far, with the step that broke it.
    pub fn violations(&self) -> Vec<String> {
        self.vm.state().violations.clone()
    }

    /// Everything that was asked of host and guest so far, in the order in which it began.
    pub fn steps(&self) -> Vec<Step> {
        self.vm.state().steps.clone()
    }
}

#[async_trait]
impl Backend for FakeBackend {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn limits(&self) -> Limits {
        self.vm.options.limits
    }

    async fn listen(&self, port: u32) -> Result<BoxListener, BackendError> {
        if let Some(exit) = self.vm.exit_now() {
            return Err(BackendError::Gone(exit));
        }
        let (sender, streams) = mpsc::unbounded_channel();
        let Some(token) = self.vm.add_listener(port, sender) else {
            let source = io::Error::from(io::ErrorKind::AddrInUse);
            return Err(BackendError::Io {
                action: format!("listening on vsock port {port}"),
                source,
            });
        };
        Ok(Box::new(FakeListener {
            vm: self.vm.clone(),
            port,
            token,
            streams,
        }))
    }

    async fn start(&self) -> Result<(), BackendError> {
        let action = "starting the fake VM";
        let step = self
            .vm
            .begin(FaultPoint::Host(HostStep::Start), action.to_owned())
            .await;
        let started = match step {
            Ok(step) => {
                let first = !std::mem::replace(&mut self.vm.state().started, true);
                step.finish(if first {
                    Ok(())
                } else {
                    Err(Refusal::violation("it has been started already"))
                })
            }
            Err(error) => Err(error),
        };
        started.map_err(|error| self.error(action, error))?;
        self.vm.spawn(agent::boot(self.vm.clone()));
        Ok(())
    }

    async fn perform(&self, request: &HostRequest) -> Result<(), BackendError> {
        let action = action(request);
        let done = match self
            .vm
            .begin(FaultPoint::Host(request.into()), format!("{request:?}"))
            .await
        {
            Ok(step) => {
                let result = {
                    let mut state = self.vm.state();
                    let options = &self.vm.options;
                    let state = &mut *state;
                    if state.started || matches!(request, HostRequest::DeleteFile { .. }) {
                        state
                            .devices
                            .perform(request, &options.limits, &state.mounts, options.require_paths)
                    } else {
                        Err(Refusal::violation("the VM has not been started"))
                    }
                };
                step.finish(result)
            }
            Err(error) => Err(error),
        };
        done.map_err(|error| self.error(&action, error))
    }

    async fn devices(&self) -> Result<Devices, BackendError> {
        match self.vm.exit_now() {
            Some(exit) => Err(BackendError::Gone(exit)),
            None => Ok(self.host_devices()),
        }
    }

    async fn exited(&self) -> VmExit {
        self.vm.exited().await
    }

    async fn stop(&self) -> Result<VmExit, BackendError> {
        self.vm.die(true, "killed by signal 9");
        Ok(self.vm.exited().await)
    }
}

impl FakeBackend {
    fn error(&self, action: &str, error: StepError) -> BackendError {
        match error {
            StepError::Refused(reason) => BackendError::Refused {
                action: action.to_owned(),
                reason: reason.message,
            },
            StepError::Gone(exit) => BackendError::Gone(exit),
        }
    }
}

/// What a step does, in words, as every backend's errors say it.
fn action(request: &HostRequest) -> String {
    match request {
        HostRequest::AttachScsi { address, path, .. } => format!("attaching {} at {address}", path.display()),
        HostRequest::DetachScsi { address } => format!("detaching {address}"),
        HostRequest::AttachVpmem { index, path } => {
            format!("attaching {} as persistent memory {index}", path.display())
        }
        HostRequest::DetachVpmem { index } => format!("detaching persistent memory {index}"),
        HostRequest::AddShare { share, path, .. } => format!("sharing {} as share {share}", path.display()),
        HostRequest::RemoveShare { share } => format!("withdrawing share {share}"),
        HostRequest::DeleteFile { path } => format!("deleting {}", path.display()),
    }
}

/// Streams the fake guest opens to one port.
struct FakeListener {
    vm: Arc<Vm>,
    port: u32,
    token: u64,
    streams: mpsc::UnboundedReceiver<BoxStream>,
}

#[async_trait]
impl Listener for FakeListener {
    async fn accept(&mut self) -> io::Result<BoxStream> {
        let gone = |exit: VmExit| io::Error::new(io::ErrorKind::NotConnected, exit.to_string());
        tokio::select! {
            biased;
            stream = self.streams.recv() => stream.ok_or_else(|| io::ErrorKind::NotConnected.into()),
            exit = self.vm.exited() => Err(gone(exit)),
        }
    }
}

impl Drop for FakeListener {
    fn drop(&mut self) {
        self.vm.remove_listener(self.port, self.token);
    }
}
