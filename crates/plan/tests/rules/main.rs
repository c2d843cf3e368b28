//! Each rule of the root filesystem and of the mounts, and each refusal.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod document;
mod further;
mod host;
mod mounts;
mod root;
