//! Debian's containerd drives the shim: its own client ([`ctr`]), and its CRI plugin ([`pods`], [`port_forward`]). Needs root, a VM,
//! containerd's programs and the CNI plugins.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cri;
mod ctr;
mod daemon;
mod image;
mod pods;
mod port_forward;
