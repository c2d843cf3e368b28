//! The containers of one utility VM, driven as a task service drives them: create, start, exec, kill, wait, delete.
//!
//! [`Pod`] holds them by name. Each process, a container's init or a further one, has FIFOs, files or a logger at the far ends of its
//! streams ([`Endpoints`]) and goes through these states:
//!
//! | state | start | kill | exec | delete | its VM goes away |
//! |---|---|---|---|---|---|
//! | created | starting | stopped (init: by SIGKILL or SIGTERM; else refused) | refused | gone | created |
//! | starting | refused | refused | refused | refused | stopped |
//! | running | refused | the signal is sent | a further process, created | refused | stopped, as by SIGKILL |
//! | paused | refused | the signal is sent; it takes effect when it goes on, and SIGKILL at once | refused | refused | stopped, as by SIGKILL |
//! | stopped | refused | refused: already finished | refused | gone | stopped |
//!
//! Only an init is paused, and only while it runs; resumed, it runs again. A start that fails leads from starting to stopped. Everything that happened is told once, in order, as an [`Event`].
//! No lock is held over anything that waits.
//!
//! [`connect`] leads a client's connection to a service of theirs.

mod connection;
mod container;
mod endpoints;
mod error;
mod events;
mod inspect;
mod limits;
mod logger;
mod names;
mod pod;
mod process;

pub use crate::{
    connection::connect,
    container::NewContainer,
    endpoints::{Endpoints, Streams},
    error::PodError,
    events::Event,
    inspect::{ContainerView, ProcessView},
    limits::PodLimits,
    pod::{Pod, ProcessState},
    process::{Exit, ProcessName, Status},
};
