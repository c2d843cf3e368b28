//! `cofferdam run --no-vm` with real layers, mounts and an OCI runtime of the host. Needs root, runc (or another one)
//! and the images' tools: a test that cannot run here fails and says what is missing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../bundle/mod.rs"]
mod bundle;
mod killed;
mod runs;
mod scene;
