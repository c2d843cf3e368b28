//! A pod's containers on the fake VM: states, events, streams, and what happens when something goes away.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod connections;
mod copies;
mod goes_away;
mod limits;
mod loggers;
mod scene;
mod states;
mod streams;
