//! One container, from Create to its exit.

use std::{path::Path, sync::Arc, time::Duration};

use cofferdam_backend::BackendError;
use cofferdam_bridge::{Bridge, BridgeError, CloseReason, ContainerExit};
use cofferdam_protocol::message::{ContainerConfig, SchemaVersion};
use cofferdam_vm::UtilityVm;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    stdio::{Relays, Stdio},
    streams::Streams,
};

/// For a container whose process never ran to be over once it was killed.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Why a container could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The guest could not create it.
    #[error("creating the container in the guest: {0}")]
    Create(#[source] BridgeError),
    /// Its process could not be started.
    #[error("starting the container's process: {0}")]
    Start(#[source] BridgeError),
    /// A standard stream could not be opened on the host.
    #[error("listening for the container's {stream}: {source}")]
    Listen {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'static str,
        /// The backend's reason.
        #[source]
        source: BackendError,
    },
    /// The guest did not connect a standard stream.
    #[error("connecting the container's {stream}: {source}")]
    Connect {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// It could not be ended.
    #[error("ending the container that was never started: {0}")]
    End(#[source] BridgeError),
    /// The guest could not be asked how it ended.
    #[error("waiting for the container's process: {0}")]
    Wait(#[source] BridgeError),
    /// The connection ended before the container did.
    #[error("waiting for the container's end: {0}")]
    Lost(#[source] CloseReason),
    /// The guest could not forget it.
    #[error("deleting the container's state in the guest: {0}")]
    Delete(#[source] BridgeError),
}

/// A container that exists in the guest, its process held.
#[must_use = "a created container stays in the guest until it is started and deleted"]
pub struct Created {
    vm: Arc<UtilityVm>,
    id: String,
    exit: ContainerExit,
    terminal: bool,
}

/// A container whose process runs.
#[must_use = "a running container is waited for"]
pub struct Running {
    vm: Arc<UtilityVm>,
    id: String,
    exit: ContainerExit,
    process: u32,
    relays: Relays,
}

/// What can be done to a running container from elsewhere while it is waited for.
#[derive(Clone)]
pub struct Handle {
    pub(crate) bridge: Arc<Bridge>,
    pub(crate) id: String,
    process: u32,
}

impl Created {
    /// Creates the container in the guest. `spec` is the rewritten one of the plan.
    ///
    /// # Errors
    /// [`RunError::Create`], with the guest's own reason.
    pub async fn create(vm: Arc<UtilityVm>, id: &str, root: &str, spec: &Value) -> Result<Self, RunError> {
        // Before Create, so that no notification is missed.
        let exit = vm.bridge().container_exited(id);
        let config = ContainerConfig {
            schema_version: Some(SchemaVersion::V2_1),
            oci_bundle_path: root.to_owned(),
            oci_specification: Some(for_the_guest(spec)),
            ..ContainerConfig::default()
        };
        vm.bridge().create(id, config).await.map_err(RunError::Create)?;
        let terminal = spec
            .pointer("/process/terminal")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        Ok(Self {
            vm,
            id: id.to_owned(),
            exit,
            terminal,
        })
    }

    /// Whether its process gets a terminal.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        self.terminal
    }

    /// Starts the process with these streams. `size` is the terminal's, rows and columns. After a failure the container
    /// has ended.
    ///
    /// # Errors
    /// [`RunError::Start`] where the program cannot be run, and those of the streams.
    pub async fn start(self, stdio: Stdio, size: Option<(u16, u16)>) -> Result<Running, RunError> {
        match self.begin(stdio, size).await {
            Ok((process, relays)) => Ok(Running {
                relays,
                vm: self.vm,
                id: self.id,
                exit: self.exit,
                process,
            }),
            Err(error) => {
                if let Err(also) = self.end().await {
                    // The guest ends a container itself whose process it could not start.
                    tracing::debug!(error = %also, "after a start that failed");
                }
                Err(error)
            }
        }
    }

    async fn begin(&self, stdio: Stdio, size: Option<(u16, u16)>) -> Result<(u32, Relays), RunError> {
        let streams = Streams::open(&self.vm, stdio, self.terminal).await?;
        let parameters = streams.parameters(size);
        let bridge = self.vm.bridge();
        bridge.start(&self.id).await.map_err(RunError::Start)?;
        let process = bridge
            .execute_process(&self.id, parameters, streams.ports())
            .await
            .map_err(RunError::Start)?;
        Ok((process, streams.connect().await?))
    }

    /// Ends it without its process ever having run, and waits until the guest says so.
    ///
    /// # Errors
    /// [`RunError::End`], with the guest's own reason; [`RunError::Lost`] when the guest went away first.
    pub async fn end(self) -> Result<(), RunError> {
        let bridge = self.vm.bridge();
        bridge.shutdown_forced(&self.id).await.map_err(RunError::End)?;
        match timeout(END_LIMIT, self.exit).await {
            Ok(told) => told.map(drop).map_err(RunError::Lost),
            // Whatever still holds it is told by what cannot be released.
            Err(_) => Ok(()),
        }
    }
}

/// The spec without what is for the host alone: the layer folders have become the root.
fn for_the_guest(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(members) = spec.as_object_mut() {
        members.shift_remove("windows");
    }
    spec
}

impl Running {
    /// What signals and resizes it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.vm.bridge().clone(), self.id.clone(), self.process)
    }

    /// Waits until the process has ended and all of its output has been handed over, and returns its status: the
    /// exit code, or 128 plus the signal's number.
    ///
    /// # Errors
    /// [`RunError::Wait`] and [`RunError::Lost`] when the guest went away first.
    pub async fn wait(mut self) -> Result<u8, RunError> {
        let status = self.ended().await?;
        self.drained().await?;
        Ok(status)
    }

    /// Waits until the process has ended, and returns its status as [`Running::wait`] does. Its output may still be on
    /// its way: [`Running::drained`].
    ///
    /// # Errors
    /// [`RunError::Wait`] when the guest went away first.
    pub async fn ended(&self) -> Result<u8, RunError> {
        self.handle().ended().await
    }

    /// Waits until all output has been handed over and the guest has said that the container is over. Cancel-safe, but not
    /// to be called again once it has returned; a consumer that does not read makes it wait.
    ///
    /// # Errors
    /// [`RunError::Lost`] when the guest went away first.
    pub async fn drained(&mut self) -> Result<(), RunError> {
        self.relays.finish().await;
        (&mut self.exit).await.map(drop).map_err(RunError::Lost)
    }

    /// Closes its streams on this side: what has not been handed over is lost, and the guest waits for it no longer.
    pub fn cut_off(&mut self) {
        self.relays = Relays::new();
    }
}

impl Handle {
    pub(crate) fn new(bridge: Arc<Bridge>, id: String, process: u32) -> Self {
        Self { bridge, id, process }
    }

    /// The process's number in the guest.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.process
    }

    pub(crate) async fn ended(&self) -> Result<u8, RunError> {
        let waiting = self.bridge.wait_for_process(&self.id, self.process);
        let code = waiting.await.map_err(RunError::Wait)?;
        Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
    }

    /// Sends a signal. Whether it was delivered: a process that has ended takes none.
    ///
    /// # Errors
    /// The guest's.
    pub async fn signal(&self, number: i32) -> Result<bool, BridgeError> {
        self.bridge
            .signal_process(&self.id, self.process, Some(number))
            .await
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// The guest's.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), BridgeError> {
        self.bridge
            .resize_console(&self.id, self.process, rows, columns)
            .await
    }
}

/// Makes the guest forget a container. Its mounts and combined layers have been released before.
///
/// # Errors
/// [`RunError::Delete`], with the guest's own reason.
pub async fn delete_state(vm: &UtilityVm, id: &str) -> Result<(), RunError> {
    vm.bridge()
        .delete_container_state(id)
        .await
        .map_err(RunError::Delete)
}

/// Reads a bundle's or a spec's file, which may be large but not endless.
///
/// # Errors
/// The system's; and a file of over 16 MiB.
pub fn read_spec(file: &Path) -> std::io::Result<String> {
    use std::io::Read;

    const MAX_SPEC_BYTES: u64 = 16 << 20;
    let mut text = String::new();
    let read = std::fs::File::open(file)?
        .take(MAX_SPEC_BYTES + 1)
        .read_to_string(&mut text)?;
    if read as u64 > MAX_SPEC_BYTES {
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            "a spec has at most 16 MiB",
        ));
    }
    Ok(text)
}
