//! The real agent as a plain process: driven with frames over its standard streams, no VM.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod agent;
mod connections;
mod copying;
mod errors;
mod hostile;
mod limits;
mod processes;
mod storage;
