//! Images taken into a store and out of it, as their users do it. The images are made here.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod emptying;
mod full_disk;
mod hostile;
mod killed;
mod killed_steps;
mod layers;
mod recipe;
mod sources;
mod together;
