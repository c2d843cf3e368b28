//! The guest agent: PID 1 of the utility VM.
//!
//! One static program, put into the initramfs as `/init`. It sets the VM up ([`init`]), dials the host and serves
//! the guest bridge protocol ([`bridge`]): disks, layers and shares ([`storage`]), network adapters
//! ([`network`]), containers ([`container`],
//! [`runtime`]) and processes with their streams ([`process`]). Blocking threads only; what is idle costs a stack
//! that was never touched.
//!
//! As a plain process it serves the same bridge on its standard input and output:
//!
//! ```text
//! cofferdam-agent --use-inouterr --stdio-dir DIR
//! ```
//!
//! Further names are for the agent itself: `runtime` performs one operation of the container runtime in a process of its
//! own, `session` gives a program a terminal. Two are for the host: `archive` copies between a container's files and a
//! stream ([`copying`]), `connect` leads a connection into the VM ([`connect`]).

mod agent;
mod args;
mod bridge;
mod connect;
mod container;
mod copying;
mod error;
mod init;
mod log;
mod modules;
mod network;
mod power;
mod process;
mod runtime;
mod signals;
mod storage;
mod transport;

use std::{env, ffi::OsString, process::ExitCode};

use rustix::process::set_child_subreaper;

/// The program: what it does depends on its pid and its first argument.
pub fn run() -> ExitCode {
    let mut arguments = env::args_os().skip(1).peekable();
    match arguments.peek().and_then(|first| first.to_str()) {
        Some(runtime::RUNTIME) => return runtime::child::main(),
        Some(connect::CONNECT) => return connect::main(arguments.skip(1)),
        Some(copying::ARCHIVE) => return copying::main(arguments.skip(1)),
        Some(process::vm::SESSION) => {
            let words: Vec<String> = arguments
                .skip(1)
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            signals::restore_defaults();
            eprintln!(
                "{}: {}",
                words.first().map_or("session", String::as_str),
                process::vm::become_session(&words)
            );
            return ExitCode::from(127);
        }
        _ => {}
    }
    if std::process::id() == 1 {
        return init::main();
    }
    match serve_here(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("cofferdam-agent: {message}");
            ExitCode::from(2)
        }
    }
}

/// Serves the bridge on standard input and output.
fn serve_here(arguments: impl Iterator<Item = OsString>) -> Result<(), String> {
    let args = args::Args::parse(arguments)?;
    if !args.inout {
        return Err("outside a VM the bridge is on standard input and output: give --use-inouterr".into());
    }
    log::start(args.level, false);
    let failed = |error: &dyn std::fmt::Display| format!("starting: {error}");
    // The end of a container's first process must come here, as it does to PID 1.
    set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| failed(&error))?;
    let copy = |stream| rustix::io::fcntl_dupfd_cloexec(stream, 3).map_err(|error| failed(&error));
    let (reader, writer) = (copy(rustix::stdio::stdin())?, copy(rustix::stdio::stdout())?);
    let dialer = args
        .stdio_dir
        .map_or(transport::Dialer::Vsock, transport::Dialer::Directory);
    let agent = agent::Agent::start(dialer).map_err(|error| failed(&error))?;
    bridge::serve(&agent, reader, writer);
    Ok(())
}
