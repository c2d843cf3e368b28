//! The server over a socket pair, against real directories of the host. Works as root and as another user; what the
//! system grants only to root is expected to fail with EPERM otherwise.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod client;
mod connection;
mod directories;
mod endings;
mod escape;
mod files;
mod hostile;
mod locks;
mod metadata;
mod rig;
mod rights;
