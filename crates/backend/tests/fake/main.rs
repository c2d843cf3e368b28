//! The fake VM's refusals, its guest over the real bridge, and its faults.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod containers;
mod devices;
mod faults;
mod rig;
