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
    #[error("{stream} at {uri}: only a FIFO, a file and file:// are served")]
    StreamKind {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'static str,
        /// As it was given.
        uri: String,
    },
}
