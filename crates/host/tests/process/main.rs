//! Process isolation with real loop devices, mounts, overlays and daemons. Needs root: a test that cannot run here
//! fails and says what is missing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod containers;
mod crash;
mod disks;
mod failures;
mod scene;
