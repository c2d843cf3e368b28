//! `cofferdam plan` as users and scripts see it (contract, section 6): the real program on real files and images.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod formats;
mod options;
mod pods;
mod refusals;
mod scene;
