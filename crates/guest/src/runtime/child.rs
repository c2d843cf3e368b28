//! The runtime child: one thread, one operation of libcontainer.

use std::{
    error::Error,
    io::Read,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
};

use libcontainer::{
    container::{Container, builder::ContainerBuilder},
    syscall::syscall::SyscallType,
};
use rustix::io::fcntl_dupfd_cloexec;

use super::control::{self, Answer, Operation};
use crate::log;

/// libcontainer's own records of its containers.
const STATE: &str = "/run/cofferdam/runtime";

/// Performs the operation that comes on standard input.
pub(crate) fn main() -> ExitCode {
    // libcontainer warns of what it was built without, in every container alike.
    log::start(tracing::level_filters::LevelFilter::ERROR, false);
    // The container's process logs until it becomes its program, and by then has the container's standard error.
    if let Ok(own) = fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3) {
        log::use_stream(own);
    }
    crate::signals::restore_defaults();
    let stream = match fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) {
        Ok(stream) => UnixStream::from(stream),
        Err(_) => return ExitCode::from(2),
    };
    let (operation, files) = match control::receive_document(&stream) {
        Ok(received) => received,
        Err(error) => {
            tracing::error!(%error, "the container runtime was not told what to do");
            return ExitCode::from(2);
        }
    };
    let answer = match perform(operation, files) {
        Ok(pid) => Answer::Done { pid },
        Err(error) => Answer::Failed {
            reason: chain(&*error),
        },
    };
    if control::send(&stream, &answer, &[]).is_err() {
        return ExitCode::from(2);
    }
    // Ending gives the container's process to the agent: wait until it has been registered there.
    let _ = (&stream).read(&mut [0; 1]);
    ExitCode::SUCCESS
}

fn perform(operation: Operation, files: Vec<OwnedFd>) -> Result<Option<u32>, Box<dyn Error>> {
    match operation {
        Operation::Create { id, bundle, console } => {
            let container = builder(&id, files, console)?
                .as_init(bundle)
                .with_systemd(false)
                .with_detach(true)
                .build()?;
            Ok(container.pid().map(|pid| pid.as_raw().unsigned_abs()))
        }
        Operation::Start { id } => {
            Container::load(Path::new(STATE).join(id))?.start()?;
            Ok(None)
        }
        Operation::Exec { id, process, console } => {
            let pid = builder(&id, files, console)?
                .as_tenant()
                .with_detach(true)
                .with_process(Some(process))
                .build()?;
            Ok(Some(pid.as_raw().unsigned_abs()))
        }
        Operation::Delete { id } => {
            let directory = Path::new(STATE).join(id);
            if directory.exists() {
                Container::load(directory)?.delete(true)?;
            }
            Ok(None)
        }
    }
}

fn builder(
    id: &str,
    files: Vec<OwnedFd>,
    console: Option<PathBuf>,
) -> Result<ContainerBuilder, Box<dyn Error>> {
    std::fs::create_dir_all(STATE)?;
    let mut builder = ContainerBuilder::new(id.to_owned(), SyscallType::Linux)
        .with_root_path(STATE)?
        .with_console_socket(console);
    let mut files = files.into_iter();
    if let (Some(stdin), Some(stdout), Some(stderr)) = (files.next(), files.next(), files.next()) {
        builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
    }
    Ok(builder)
}

/// An error with its causes, each once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}
