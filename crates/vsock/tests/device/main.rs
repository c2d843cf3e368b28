//! The whole device over a real vhost-user socket, against a driver in this process.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod driver;
mod endings;
mod guest;
mod hostile;
mod rig;
mod streams;
