//! Images pulled into a store: from Debian's registry, and from one that does what it should not.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod debian;
mod documents;
mod fake;
mod image;
mod interrupted;
mod real;
mod scene;
mod tokens;
