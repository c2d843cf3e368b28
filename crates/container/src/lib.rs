//! A container in a utility VM: allocate, create, start, wait, release.
//!
//! [`facts`] looks at the host's files for the plan; [`Allocation`] gives the VM what the plan needs and takes it
//! back; [`Created`] and [`Running`] are the container itself.

pub mod facts;

mod allocate;
mod leftovers;
mod lifecycle;
mod stdio;

pub use crate::{
    allocate::{AllocateError, Allocation, ReleaseError, Subject},
    leftovers::{LeftoversError, left_behind},
    lifecycle::{Created, Handle, RunError, Running, delete_state, read_spec},
    stdio::Stdio,
};
