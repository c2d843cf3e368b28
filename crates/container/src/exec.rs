//! A further process in a running container, or beside it.

use std::sync::Arc;

use cofferdam_protocol::message::ProcessParameters;
use cofferdam_vm::UtilityVm;
use serde_json::{Value, json};

use crate::{
    lifecycle::{Handle, RunError},
    stdio::{Relays, Stdio},
    streams::Streams,
};

/// A process beside a container's init.
#[must_use = "a running process is waited for"]
pub struct Executed {
    handle: Handle,
    relays: Relays,
}

impl Executed {
    /// Starts a process in the container `id`. `process` is the OCI spec's object of that name; `size` is the terminal's,
    /// rows and columns.
    ///
    /// # Errors
    /// [`RunError::Start`] where the container does not run or the program cannot be run, and those of the streams.
    pub async fn start(
        vm: &Arc<UtilityVm>,
        id: &str,
        process: &Value,
        stdio: Stdio,
        size: Option<(u16, u16)>,
    ) -> Result<Self, RunError> {
        let terminal = process.get("terminal").and_then(Value::as_bool).unwrap_or(false);
        let streams = Streams::open(vm, stdio, terminal).await?;
        let mut process = process.clone();
        if let (Some((rows, columns)), Some(members)) = (size, process.as_object_mut()) {
            let size = json!({ "height": rows, "width": columns });
            members.insert("consoleSize".to_owned(), size);
        }
        let parameters = ProcessParameters {
            oci_process: Some(process),
            ..streams.parameters(size)
        };
        let bridge = vm.bridge();
        let number = bridge
            .execute_process(id, parameters, streams.ports())
            .await
            .map_err(RunError::Start)?;
        Ok(Self {
            handle: Handle::new(bridge.clone(), id.to_owned(), number),
            relays: streams.connect().await?,
        })
    }

    /// Starts a process of the VM itself, outside of the container `id` and for its sake: it outlives the container unless
    /// it is killed. `args` are the program and its arguments.
    ///
    /// # Errors
    /// [`RunError::Start`] where the program cannot be run, and those of the streams.
    pub async fn start_outside(
        vm: &Arc<UtilityVm>,
        id: &str,
        args: Vec<String>,
        stdio: Stdio,
    ) -> Result<Self, RunError> {
        let streams = Streams::open(vm, stdio, false).await?;
        let parameters = ProcessParameters {
            create_in_utility_vm: true,
            command_args: args,
            ..streams.parameters(None)
        };
        let bridge = vm.bridge();
        let number = bridge
            .execute_process(id, parameters, streams.ports())
            .await
            .map_err(RunError::Start)?;
        Ok(Self {
            handle: Handle::new(bridge.clone(), id.to_owned(), number),
            relays: streams.connect().await?,
        })
    }

    /// What signals and resizes it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until it has ended, and returns its status: the exit code, or 128 plus the signal's number.
    ///
    /// # Errors
    /// [`RunError::Wait`] when the guest went away first.
    pub async fn ended(&self) -> Result<u8, RunError> {
        self.handle.ended().await
    }

    /// Waits until all of its output has been handed over. Cancel-safe. What it started in the background may hold its
    /// streams open for longer than it lives.
    pub async fn drained(&mut self) {
        self.relays.finish().await;
    }

    /// Closes its streams on this side: what has not been handed over is lost.
    pub fn cut_off(&mut self) {
        self.relays = Relays::new();
    }
}
