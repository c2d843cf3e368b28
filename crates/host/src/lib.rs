//! Process isolation: a container without a utility VM. Its disks are attached to this host, its layers are mounted
//! and overlaid here, and an OCI runtime of the host runs it.
//!
//! [`LocalHost`] takes both sides of a driver: it is the backend that attaches, and the guest that mounts. So plan,
//! ledger, driver, release, roll-back and journal are those of a VM.
//!
//! * Raw images and fixed VHDs become loop devices. VHDX, dynamic VHD and qcow2 are shown as plain files by
//!   qemu-storage-daemon over FUSE first; neither needs a kernel module beyond loop and fuse.
//! * Everything is marked with its [`Owner`]: after a kill, [`find()`] lists what the journal says was taken and is still
//!   there, and [`clear()`] frees it.
//! * [`OciRuntime`] runs the container from the rewritten spec.
//!
//! ```
//! use cofferdam_backend::Backend;
//! use cofferdam_host::{LocalHost, Owner};
//!
//! let state = tempfile::tempdir()?;
//! let host = LocalHost::new(Owner::of(state.path())?);
//! assert_eq!(host.limits().vpmem_devices, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod disks;
mod error;
mod export;
mod files;
mod ioctl;
mod leftovers;
mod local;
mod loops;
mod mounts;
mod owner;
mod processes;
mod runtime;

pub use crate::{
    error::{HostError, Result},
    leftovers::{Leftover, Outcome, clear, find},
    local::LocalHost,
    owner::Owner,
    runtime::{LocalContainer, OciRuntime},
};
