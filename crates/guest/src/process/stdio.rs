//! The streams of a process: which ones the host wants, and how they are tied to it (GCS bridge protocol §8).

use std::{io, os::fd::OwnedFd, sync::Arc};

use cofferdam_protocol::message::{ProcessParameters, VsockStdioRelaySettings};
use rustix::{
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::{
    Process,
    relay::{self, Unread},
};
use crate::{
    error::{AgentError, During, Result},
    transport::Dialer,
};

/// Streams to the host, for those it wants.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

impl Streams {
    /// Dials the wanted streams in the order the host expects. One that fails, fails all.
    pub(crate) fn dial(
        dialer: &Dialer,
        parameters: &ProcessParameters,
        ports: VsockStdioRelaySettings,
        console: bool,
    ) -> Result<Self> {
        let dial = |name: &str, wanted: bool, port: Option<u32>| match (wanted, port) {
            (false, _) => Ok(None),
            (true, None) => Err(AgentError::Invalid(format!(
                "{name} is wanted, but no port for it is given"
            ))),
            (true, Some(port)) => dialer
                .dial(port)
                .map(Some)
                .during(|| format!("dialling port {port} of the host for {name}")),
        };
        Ok(Self {
            stdin: dial("stdin", parameters.create_std_in_pipe, ports.std_in)?,
            stdout: dial("stdout", parameters.create_std_out_pipe, ports.std_out)?,
            // A console has one output.
            stderr: dial(
                "stderr",
                parameters.create_std_err_pipe && !console,
                ports.std_err,
            )?,
        })
    }
}

/// The agent's ends of a process's standard streams.
#[derive(Debug)]
pub(crate) enum ProcessEnds {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Console(OwnedFd),
}

/// The process's own ends of three pipes.
#[derive(Debug)]
pub(crate) struct ChildEnds {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Three pipes.
pub(crate) fn pipes() -> Result<(ProcessEnds, ChildEnds)> {
    let make = || io::pipe().during(|| "making a pipe".into());
    let ((stdin_read, stdin_write), (stdout_read, stdout_write), (stderr_read, stderr_write)) =
        (make()?, make()?, make()?);
    Ok((
        ProcessEnds::Pipes {
            stdin: stdin_write.into(),
            stdout: stdout_read.into(),
            stderr: stderr_read.into(),
        },
        ChildEnds {
            stdin: stdin_read.into(),
            stdout: stdout_write.into(),
            stderr: stderr_write.into(),
        },
    ))
}

/// A new pseudo-terminal: the agent's end, and the process's.
pub(crate) fn console() -> Result<(OwnedFd, OwnedFd)> {
    let open = || {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let agent = openpt(flags)?;
        grantpt(&agent)?;
        unlockpt(&agent)?;
        let process = ioctl_tiocgptpeer(&agent, flags)?;
        Ok::<_, rustix::io::Errno>((agent, process))
    };
    open().during(|| "opening a pseudo-terminal".into())
}

/// Ties `process` to the host: relays run from now on, and the process is done only when its output is out.
pub(crate) fn connect(process: &Arc<Process>, ends: ProcessEnds, streams: Streams) -> Result<()> {
    let output = |from: Arc<OwnedFd>, to: Option<OwnedFd>, unread| {
        if !process.add_part() {
            return Ok(());
        }
        let finished = Arc::clone(process);
        relay::output(from, to, unread, process.ended.clone(), move || {
            finished.part_done()
        })
        .inspect_err(|_| process.part_done())
    };
    let start = || {
        match ends {
            ProcessEnds::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                output(Arc::new(stdout), streams.stdout, Unread::Breaks)?;
                output(Arc::new(stderr), streams.stderr, Unread::Breaks)?;
                // Without a stream the pipe closes here: the process reads the end at once.
                if let Some(stream) = streams.stdin {
                    relay::input(stream, Arc::new(stdin), false, process.ended.clone())?;
                }
            }
            ProcessEnds::Console(console) => {
                let console = Arc::new(console);
                process.set_console(Arc::clone(&console));
                output(Arc::clone(&console), streams.stdout, Unread::IsDiscarded)?;
                if let Some(stream) = streams.stdin {
                    relay::input(stream, console, true, process.ended.clone())?;
                }
            }
        }
        Ok::<_, io::Error>(())
    };
    start().during(|| "starting the copying of a process's output".into())
}

/// Sets the size of a console. One that is closed already is no error.
pub(crate) fn resize(process: &Process, height: u16, width: u16) -> Result<()> {
    let Some(console) = process.console() else {
        if process.has_exited() {
            return Ok(());
        }
        return Err(AgentError::InvalidState(format!(
            "process {} has no console",
            process.pid()
        )));
    };
    let size = Winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    match tcsetwinsize(&*console, size) {
        Err(rustix::io::Errno::IO) => Ok(()),
        outcome => outcome.during(|| format!("resizing the console of process {}", process.pid())),
    }
}
