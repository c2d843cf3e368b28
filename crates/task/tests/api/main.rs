//! The task API on a socket, over containers of the fake VM: what clients ask for that they should not.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod clients;
mod documents;
mod names;
mod scene;
mod states;
