//! What others see of an owner, over its real sockets, with the pod on the fake VM.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod events;
mod map;
