//! The standard streams of one process on their way: listened for before the request, accepted after it.

use cofferdam_backend::BoxStream;
use cofferdam_protocol::message::{ProcessParameters, VsockStdioRelaySettings};
use cofferdam_vm::{StdioPort, UtilityVm};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    lifecycle::RunError,
    stdio::{Relays, Stdio},
};

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A port the guest will dial, and the caller's end of the stream.
type Listening<End> = Option<(StdioPort, End)>;

/// Streams that the host listens for.
pub(crate) struct Streams {
    terminal: bool,
    stdin: Listening<Reader>,
    stdout: Listening<Writer>,
    stderr: Listening<Writer>,
}

impl Streams {
    /// Listens for each stream the caller has an end of. A terminal has no error output of its own.
    pub(crate) async fn open(vm: &UtilityVm, stdio: Stdio, terminal: bool) -> Result<Self, RunError> {
        Ok(Self {
            terminal,
            stdin: listening(vm, "stdin", stdio.stdin).await?,
            stdout: listening(vm, "stdout", stdio.stdout).await?,
            stderr: listening(vm, "stderr", stdio.stderr.filter(|_| !terminal)).await?,
        })
    }

    /// The process's parameters as far as they are of its streams. `size` is the terminal's, rows and columns.
    pub(crate) fn parameters(&self, size: Option<(u16, u16)>) -> ProcessParameters {
        ProcessParameters {
            emulate_console: self.terminal,
            create_std_in_pipe: self.stdin.is_some(),
            create_std_out_pipe: self.stdout.is_some(),
            create_std_err_pipe: self.stderr.is_some(),
            console_size: size.map(|(rows, columns)| [rows, columns]),
            ..ProcessParameters::default()
        }
    }

    /// Where the guest dials them.
    pub(crate) fn ports(&self) -> VsockStdioRelaySettings {
        VsockStdioRelaySettings {
            std_in: self.stdin.as_ref().map(|(port, _)| port.port()),
            std_out: self.stdout.as_ref().map(|(port, _)| port.port()),
            std_err: self.stderr.as_ref().map(|(port, _)| port.port()),
        }
    }

    /// Takes the guest's connections and relays them. The guest has dialled every stream by the time it answers the
    /// request, so the order of accepting is free.
    pub(crate) async fn connect(self) -> Result<Relays, RunError> {
        let mut relays = Relays::new();
        if let Some((port, reader)) = self.stdin {
            relays.feed(reader, connected("stdin", port).await?);
        }
        if let Some((port, writer)) = self.stdout {
            relays.drain("stdout", connected("stdout", port).await?, writer);
        }
        if let Some((port, writer)) = self.stderr {
            relays.drain("stderr", connected("stderr", port).await?, writer);
        }
        Ok(relays)
    }
}

async fn listening<End>(
    vm: &UtilityVm,
    stream: &'static str,
    end: Option<End>,
) -> Result<Listening<End>, RunError> {
    let Some(end) = end else { return Ok(None) };
    match vm.open_stdio().await {
        Ok(port) => Ok(Some((port, end))),
        Err(source) => Err(RunError::Listen { stream, source }),
    }
}

async fn connected(stream: &'static str, port: StdioPort) -> Result<BoxStream, RunError> {
    port.accept()
        .await
        .map_err(|source| RunError::Connect { stream, source })
}
