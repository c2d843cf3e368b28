//! A container in a utility VM: allocate, create, start, wait, release.
//!
//! [`facts`] looks at the host's files for the plan; [`Allocation`] gives the VM what the plan needs and takes it
//! back; [`Created`] and [`Running`] are the container itself, [`Executed`] a further process in it, and [`Mounts`] what
//! it is given while it runs.

pub mod facts;

mod allocate;
mod control;
mod exec;
mod held;
mod holding;
mod hot_mount;
mod leftovers;
mod lifecycle;
mod stdio;
mod streams;

pub use crate::{
    allocate::{AllocateError, Allocation, ReleaseError, Subject},
    control::{limit_pod, pod_stats},
    exec::Executed,
    held::Held,
    hot_mount::{HotMount, HotMountError, Mounted, Mounts},
    leftovers::{LeftoversError, left_behind},
    lifecycle::{Created, Handle, RunError, Running, delete_state, read_spec},
    stdio::Stdio,
};
