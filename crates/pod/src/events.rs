//! What happens in a pod, told in the order in which it happened.

use crate::{Endpoints, Exit, ProcessName};

/// Something that happened to a container or to one of its processes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A container was created.
    Created {
        /// Its name.
        container: String,
        /// Its bundle on the host.
        bundle: std::path::PathBuf,
        /// Its init's streams.
        endpoints: Endpoints,
    },
    /// A container's init, or a further process, was started.
    Started {
        /// Which.
        name: ProcessName,
    },
    /// A further process was added to a container.
    ExecAdded {
        /// Which.
        name: ProcessName,
    },
    /// A container stands still.
    Paused {
        /// Its name.
        container: String,
    },
    /// A container goes on.
    Resumed {
        /// Its name.
        container: String,
    },
    /// A container ran out of memory, and something in it was killed for that.
    OutOfMemory {
        /// Its name.
        container: String,
        /// How many processes have been killed for it since the container was created.
        kills: u64,
    },
    /// A process ended. It comes once for each that was started, and after that.
    Exited {
        /// Which.
        name: ProcessName,
        /// How, and when.
        exit: Exit,
    },
    /// A container or a further process was deleted, and everything it held given back.
    Deleted {
        /// Which.
        name: ProcessName,
        /// How it had ended.
        exit: Exit,
    },
}
