//! A program that takes a process's output: `binary://` and a path, as containerd's clients name it. What it may expect is what
//! containerd's own shim does (`pkg/process/io.go`).
//!
//! It finds standard output at descriptor 3 and error output at 4, and closes 5 once it is ready; only then does the process
//! start. Its arguments are the keys and values of the URI's query, its environment says whose output it is. When the
//! output has ended it reads the end of both, and is expected to end too.

use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    process::{ExitStatus, Stdio},
    task::{Context, Poll, ready},
    time::Duration,
};

use command_fds::{CommandFdExt as _, FdMapping};
use percent_encoding::percent_decode_str;
use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, kill_process},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite},
    net::unix::pipe,
    process::{Child, Command},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use crate::{PodError, ProcessName};

/// How long it may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// How long it may take to end once the output has, and again once it has been told to by SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A process that is ending (Linux, `include/linux/sched.h`).
const PF_EXITING: u64 = 4;

/// What a URI asks to be run.
#[derive(Debug, PartialEq, Eq)]
struct Invocation {
    program: PathBuf,
    arguments: Vec<String>,
}

/// Whether a URI names a logger.
pub(crate) fn is_logger(uri: &str) -> bool {
    uri.starts_with("binary:")
}

/// The path of a URI, without its escapes.
pub(crate) fn unescaped(path: &str) -> PathBuf {
    OsString::from_vec(percent_decode_str(path).collect()).into()
}

fn invocation(uri: &str) -> Option<Invocation> {
    let rest = uri.strip_prefix("binary://")?;
    let rest = rest.split('#').next()?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') {
        return None;
    }
    // A key that comes again is the first one's.
    let mut keys = Vec::new();
    let mut arguments = Vec::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if !keys.contains(&key) {
            arguments.extend([key.to_string(), value.into_owned()]);
            keys.push(key);
        }
    }
    Some(Invocation {
        program: unescaped(path),
        arguments,
    })
}

type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A logger that runs. Dropped, it ends as by [`Logger::end`], without anybody who waits.
#[derive(Debug)]
pub(crate) struct Logger {
    /// Nothing is sent: it is dropped.
    over: oneshot::Sender<()>,
    attending: JoinHandle<()>,
}

/// A logger with what is written to it.
pub(crate) struct Started {
    pub(crate) logger: Logger,
    pub(crate) stdout: Writer,
    pub(crate) stderr: Writer,
}

impl Logger {
    /// Starts it for a process's output, and waits until it is ready.
    pub(crate) async fn start(uri: &str, namespace: &str, name: &ProcessName) -> Result<Started, PodError> {
        let invocation = invocation(uri).ok_or_else(|| PodError::StreamKind {
            stream: "stdout",
            uri: uri.to_owned(),
        })?;
        let program = invocation.program.clone();
        let refused = |source| PodError::LoggerStart {
            program: program.clone(),
            source,
        };
        let (mut child, ends) = spawned(&invocation, namespace, name).map_err(refused)?;
        let stdout = Outlet::new(ends.stdout, "stdout", name).map_err(refused)?;
        let stderr = Outlet::new(ends.stderr, "stderr", name).map_err(refused)?;
        let ready = pipe::Receiver::from_owned_fd(ends.ready).map_err(refused)?;
        if let Err(what) = readied(&mut child, ready).await {
            // It may have ended by itself.
            let _ = child.kill().await;
            return Err(PodError::LoggerReady { program, what });
        }
        let (over, ended) = oneshot::channel();
        let attending = tokio::spawn(attend(child, ended, program, name.clone()));
        Ok(Started {
            logger: Self { over, attending },
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
        })
    }

    /// Waits until it has ended; what is written to it must be closed by now. One that does not end is killed.
    pub(crate) async fn end(self) {
        drop(self.over);
        if let Err(error) = self.attending.await {
            tracing::error!(%error, "attending a logger");
        }
    }
}

/// Our ends of a logger's pipes.
struct Ends {
    stdout: OwnedFd,
    stderr: OwnedFd,
    ready: OwnedFd,
}

fn spawned(invocation: &Invocation, namespace: &str, name: &ProcessName) -> io::Result<(Child, Ends)> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let ((stdout, out), (stderr, err), (ready, is_ready)) = (pipe()?, pipe()?, pipe()?);
    let mut command = std::process::Command::new(&invocation.program);
    command
        .args(&invocation.arguments)
        .env_clear()
        // As containerd has it: of a further process, its own name.
        .env("CONTAINER_ID", name.exec.as_ref().unwrap_or(&name.container))
        .env("CONTAINER_NAMESPACE", namespace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mappings = [(stdout, 3), (stderr, 4), (is_ready, 5)];
    let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command
        .fd_mappings(mappings.into())
        .map_err(|error| io::Error::other(error.to_string()))?;
    // With the command, our copies of its ends are closed.
    let child = Command::from(command).spawn()?;
    let (stdout, stderr) = (out, err);
    Ok((
        child,
        Ends {
            stdout,
            stderr,
            ready,
        },
    ))
}

/// Waits for the end of the pipe that is closed to say so.
async fn readied(child: &mut Child, mut ready: pipe::Receiver) -> Result<(), String> {
    match timeout(READY_LIMIT, ready.read(&mut [0])).await {
        Err(_) => return Err(format!("was not ready within {} s", READY_LIMIT.as_secs())),
        Ok(Err(error)) => return Err(format!("could not be heard: {error}")),
        Ok(Ok(_)) => {}
    }
    // The kernel closes the descriptors of a program that ends, too.
    if child.id().is_none_or(is_ending) {
        return Err(match child.wait().await {
            Ok(status) => format!("ended before it was ready: {status}"),
            Err(error) => format!("ended before it was ready: {error}"),
        });
    }
    Ok(())
}

/// Whether a process has begun to end, which it has before its descriptors are closed (proc_pid_stat(5), `flags`).
fn is_ending(pid: u32) -> bool {
    let Ok(line) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let after_name = line.rsplit_once(')').map_or("", |(_, rest)| rest);
    let flags = after_name.split_whitespace().nth(6);
    flags.is_none_or(|flags| flags.parse::<u64>().is_ok_and(|flags| flags & PF_EXITING != 0))
}

/// Collects it when it ends; sees to it once its work is over.
async fn attend(mut child: Child, over: oneshot::Receiver<()>, program: PathBuf, name: ProcessName) {
    tokio::select! {
        ended = child.wait() => {
            return told(&program, &name, ended);
        }
        _ = over => {}
    }
    if let Ok(ended) = timeout(END_LIMIT, child.wait()).await {
        return told(&program, &name, ended);
    }
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        // It may have ended just now.
        let _ = kill_process(pid, Signal::TERM);
    }
    if timeout(END_LIMIT, child.wait()).await.is_err() {
        tracing::warn!(program = %program.display(), "the logger of {name} does not end: it is killed");
        if let Err(error) = child.kill().await {
            tracing::error!(%error, program = %program.display(), "the logger of {name} cannot be killed");
        }
    }
}

fn told(program: &Path, name: &ProcessName, ended: io::Result<ExitStatus>) {
    let program = program.display();
    match ended {
        Ok(status) if status.success() => tracing::debug!(%program, "the logger of {name} has ended"),
        Ok(status) => tracing::error!(%program, %status, "the logger of {name} failed"),
        Err(error) => tracing::error!(%program, %error, "the logger of {name}"),
    }
}

/// What is written to a logger. Once it has gone away, output is lost, and the process goes on.
struct Outlet {
    pipe: Option<pipe::Sender>,
    stream: &'static str,
    name: ProcessName,
}

impl Outlet {
    fn new(pipe: OwnedFd, stream: &'static str, name: &ProcessName) -> io::Result<Self> {
        Ok(Self {
            pipe: Some(pipe::Sender::from_owned_fd(pipe)?),
            stream,
            name: name.clone(),
        })
    }
}

impl AsyncWrite for Outlet {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(pipe) = &mut self.pipe else {
            return Poll::Ready(Ok(bytes.len()));
        };
        match ready!(Pin::new(pipe).poll_write(context, bytes)) {
            Ok(written) => Poll::Ready(Ok(written)),
            Err(error) => {
                tracing::error!(%error, "the logger takes no {} of {} any more: it is lost", self.stream, self.name);
                self.pipe = None;
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A pipe holds nothing back that could be pushed.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(uri: &str) -> Option<(String, Vec<String>)> {
        let found = invocation(uri)?;
        Some((found.program.to_str().unwrap().to_owned(), found.arguments))
    }

    fn wanted(program: &str, arguments: &[&str]) -> Option<(String, Vec<String>)> {
        Some((
            program.to_owned(),
            arguments.iter().map(|&text| text.to_owned()).collect(),
        ))
    }

    #[test]
    fn a_uri_is_a_program_and_its_arguments() {
        assert_eq!(parsed("binary:///bin/log"), wanted("/bin/log", &[]));
        assert_eq!(
            parsed("binary:///a%20b/l%c3%b6g?_INTERNAL_LOGGING=%2Fvar%2Flib&x=1+2&x=3#part"),
            wanted("/a b/lög", &["_INTERNAL_LOGGING", "/var/lib", "x", "1 2"])
        );
        // A key alone has an empty value, as containerd's own shim passes it on.
        assert_eq!(parsed("binary:///l?k"), wanted("/l", &["k", ""]));
    }

    #[test]
    fn what_is_no_path_is_not_run() {
        for uri in [
            "binary://",
            "binary://log",
            "binary:/bin/log",
            "binary://host/bin/log",
            "binary://?k=v",
        ] {
            assert_eq!(parsed(uri), None, "{uri}");
        }
    }

    #[test]
    fn a_process_that_runs_is_not_ending_and_one_that_ended_is() {
        assert!(!is_ending(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let begun = std::time::Instant::now();
        // Not waited for: it stays as what has ended.
        while !is_ending(pid) {
            assert!(begun.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(5));
        }
        child.wait().unwrap();
        assert!(is_ending(pid));
    }
}
