//! Debian's containerd drives the shim: its own client ([`ctr`]), and its CRI plugin ([`pods`], [`port_forward`]);
//! this project's own commands see what they do ([`seen`]). Needs root, a VM,
//! containerd's programs and the CNI plugins.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cri;
mod ctr;
mod daemon;
mod image;
mod limits;
mod loggers;
mod pods;
mod port_forward;
mod seen;
