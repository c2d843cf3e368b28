//! What can go wrong with a pod's containers.

use std::{io, path::PathBuf};

use cofferdam_bridge::BridgeError;
use cofferdam_container::{AllocateError, ReleaseError, RunError};
use cofferdam_plan::PlanError;

use crate::ProcessName;

/// Why something could not be done with a container or a process.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// There is no container of that name.
    #[error("container {0} does not exist")]
    NoContainer(String),
    /// There is no such further process.
    #[error("{0} does not exist")]
    NoProcess(ProcessName),
    /// It cannot be called so.
    #[error("a {what} cannot be called {name}: 1 to {most} letters, digits and _ - . +, and no dot first")]
    Name {
        /// `container` or `process`.
        what: &'static str,
        /// The name, or its beginning, quoted.
        name: String,
        /// How many bytes it may have.
        most: usize,
    },
    /// There is no such signal.
    #[error("there is no signal {0}: they are numbered from 1 to 64, and 0 only asks")]
    NoSignal(i32),
    /// The name is taken.
    #[error("{0} exists already")]
    Exists(ProcessName),
    /// It is in another state than it would have to be in.
    #[error("{name} {state}: {wanted}")]
    State {
        /// What was asked about.
        name: ProcessName,
        /// How it is, in words: `is running`.
        state: &'static str,
        /// What would have to be the case.
        wanted: &'static str,
    },
    /// The process has ended, or never ran, and takes no signal.
    #[error("{0}: process already finished")]
    Finished(ProcessName),
    /// It has no terminal.
    #[error("{0} has no terminal")]
    NoTerminal(ProcessName),
    /// The guest's agent is another one than ours, or an older one.
    #[error("the guest's agent does not copy files")]
    NoCopies,
    /// The spec asks for what cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The VM could not give it what it needs.
    #[error(transparent)]
    Allocate(#[from] AllocateError),
    /// What it held could not be given back; deleting it again goes on.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The container or the process could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The guest refused something.
    #[error(transparent)]
    Guest(#[from] BridgeError),
    /// A stream's other end could not be opened.
    #[error("opening {stream} at {}: {source}", path.display())]
    Stream {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'static str,
        /// The FIFO or file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A stream's other end is of a kind that is not served.
    #[error(
        "{stream} at {uri}: only a FIFO, a file, file:// and, for both outputs together, binary:// are served"
    )]
    StreamKind {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'static str,
        /// As it was given.
        uri: String,
    },
    /// An annotation of a sandbox is no limit.
    #[error("the annotation {name} is {value}: it is a number from {from} to {to}, or 0")]
    Annotation {
        /// Which.
        name: &'static str,
        /// As it was given, or its beginning.
        value: String,
        /// The least it can be.
        from: u64,
        /// The most.
        to: u64,
    },
    /// A logger could not be started.
    #[error("starting the logger {}: {source}", program.display())]
    LoggerStart {
        /// Its program.
        program: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A logger did not become ready.
    #[error("the logger {} {what}", program.display())]
    LoggerReady {
        /// Its program.
        program: PathBuf,
        /// What happened instead.
        what: String,
    },
    /// A connection could not be led to a service in the VM, or broke there.
    #[error("leading a connection to {to} in the VM: {source}")]
    Connection {
        /// The address that was asked for first.
        to: String,
        /// What the guest says of it, or the way to the guest.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
