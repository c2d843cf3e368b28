//! `containerd-shim-cofferdam-v1`: the owner process of one utility VM, serving containerd's task API.
//!
//! containerd calls it three ways: `start` answers with the address of the process that serves a container, which for a
//! container of a pod is its sandbox's; without an action it is that process; `delete` clears up after one that was
//! killed. The task API is [`cofferdam_task`]'s; [`owner`] is this process to it, and [`machine`] the VM below.

mod address;
mod configuration;
mod delete;
mod forward;
mod log;
mod machine;
mod network;
mod owner;
mod publish;
mod rootfs;
mod serve;
mod sizing;
mod start;
mod watched;

use std::process::ExitCode;

use anyhow::Result;
use containerd_shim::{Flags, parse};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd shows this to the user.
            eprintln!("containerd-shim-cofferdam-v1: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let flags = parse(&arguments)?;
    if flags.version {
        println!("containerd-shim-cofferdam-v1 {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    match flags.action.as_str() {
        "start" => start::start(&flags),
        "delete" => delete::delete(&flags),
        "" => served(&flags),
        other => anyhow::bail!("unknown action {other}: it is start, delete or none"),
    }
}

fn served(flags: &Flags) -> Result<()> {
    // Two workers: one may be busy with a stream while the other answers.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve::serve(flags));
    runtime.shutdown_background();
    served
}
