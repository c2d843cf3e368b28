//! Set-up, boot files, demo and checks of this repository: `cargo xtask --help`.
//!
//! Every command is idempotent and prepares what it needs itself: `demo` and `test` start from a fresh Debian 12
//! machine with a Rust toolchain. Programs are run with their output kept in `target/xtask-logs` and shown only
//! when they fail. What has no I/O (the cpio writer, the module closure, the apt source, the layering rules) is in
//! modules of its own, with its tests beside it.

mod bench;
mod boot;
mod cached;
mod cli;
mod debs;
mod demo;
mod deny;
mod fingerprint;
mod fuzz;
mod kernel;
mod layering;
mod layers;
mod peers;
mod processes;
mod progress;
mod setup;
mod testing;
mod tool;
mod workspace;

use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = cli::run();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            progress::report_failure(&error);
            ExitCode::FAILURE
        }
    }
}
