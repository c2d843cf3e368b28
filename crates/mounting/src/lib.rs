//! Mounting what containers stand on: one way for the agent inside a VM and for the host in process isolation.
//!
//! * [`filesystem`] tells what a block device holds, and mounts it.
//! * [`mount_point`] makes mount points, clears them, binds.
//! * [`mountinfo`] is the mount table, as the kernel tells it: what is mounted is read, never remembered.
//! * [`overlay`] stacks layers.
//! * [`verity`] finds a hash tree behind a layer's file system, [`mapper`] has the kernel check every block against it,
//!   and [`layer`] is both together.
//!
//! Every removal is idempotent: what is absent counts as done.
//!
//! ```
//! use cofferdam_mounting::{mount_point, mountinfo};
//!
//! assert!(mountinfo::is_mounted("/proc".as_ref())?);
//! let dir = tempfile::tempdir().unwrap();
//! let point = dir.path().join("point");
//! mount_point::make_free(&point)?;
//! mount_point::clear(&point)?;
//! mount_point::clear(&point)?;
//! # Ok::<(), cofferdam_mounting::MountError>(())
//! ```

mod dm_ioctl;
mod error;
pub mod filesystem;
pub mod layer;
pub mod mapper;
pub mod mount_point;
pub mod mountinfo;
pub mod overlay;
pub mod verity;

pub use crate::error::{During, MountError, Result};
