//! The guest agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    cofferdam_guest::run()
}
