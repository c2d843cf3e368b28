//! What can only be settled once a container's root filesystem is mounted, and before its process starts: who the user
//! of a name is, and that its working directory and its volumes are there.
//!
//! The guest agent does this in the VM, and the host in process isolation. Everything in the filesystem is hostile:
//! paths end at its root, whatever symbolic links say, only regular files are opened, and only so much of them is read.
//!
//! ```no_run
//! # fn settle(mut document: serde_json::Value) -> Result<(), cofferdam_rootfs::RootfsError> {
//! // `root.path` of the document is mounted; `process.user.username` says "www-data".
//! cofferdam_rootfs::settle(&mut document)?;
//! assert_eq!(document["process"]["user"]["uid"], 33);
//! # Ok(()) }
//! ```

mod account;
mod error;
mod mount_points;
mod root;
mod settle;

pub use account::{Account, AccountError, resolve};
pub use error::RootfsError;
pub use mount_points::make_mount_points;
pub use root::Root;
pub use settle::{VOLUMES, settle, settle_user};
