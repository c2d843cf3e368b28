//! Archives of every kind of writer, good and bad, read to their end.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bounds;
mod formats;
mod gnu_tar;
mod hostile;
mod input;
mod reading;
mod round_trip;
mod sparse;
mod writer;
