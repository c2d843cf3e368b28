//! Running containers: libcontainer in a child of this program.
//!
//! libcontainer forks and changes the working directory, so it must not run in a process with threads. Each
//! operation runs in a fresh copy of this program with one thread (`runtime`), told over a socket what to do. The
//! container's first process becomes a child of the agent when that copy ends; the copy ends only after the agent
//! has registered it, so its exit code cannot be lost.

pub(crate) mod child;
mod control;

use std::{
    fs,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use control::{Answer, Operation};
use serde_json::Value;

use crate::{
    error::{AgentError, During, Result},
    process::{
        Process,
        reaper::Reaper,
        relay::drain_now,
        stdio::{self, ProcessEnds},
    },
};

/// The argument that makes this program run one operation.
pub(crate) const RUNTIME: &str = "runtime";
/// Files of running operations: console sockets and process documents.
const SCRATCH: &str = "/run/cofferdam/operations";
/// How long an operation may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Most text taken from an operation's log.
const LOG_BYTES: usize = 16 * 1024;

/// Performs operations on containers.
pub(crate) struct Runtime {
    reaper: Arc<Reaper>,
    next: AtomicU64,
}

impl Runtime {
    pub(crate) fn new(reaper: Arc<Reaper>) -> Self {
        Self {
            reaper,
            next: AtomicU64::new(0),
        }
    }

    /// Creates container `id` from the document in `bundle`; its first process is held until [`Runtime::start`].
    /// `process` hears of its end.
    pub(crate) fn create(
        &self,
        id: &str,
        bundle: &Path,
        terminal: bool,
        process: &Arc<Process>,
    ) -> Result<ProcessEnds> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let console = terminal.then(|| ConsoleSocket::new(number)).transpose()?;
        let operation = Operation::Create {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            console: console.as_ref().map(|console| console.path.clone()),
        };
        self.start_process(&format!("creating container {id}"), &operation, console, process)
    }

    /// Starts a further process in container `id`.
    pub(crate) fn exec(
        &self,
        id: &str,
        document: &Value,
        terminal: bool,
        process: &Arc<Process>,
    ) -> Result<ProcessEnds> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let console = terminal.then(|| ConsoleSocket::new(number)).transpose()?;
        let path = scratch(number, "json");
        let write = || {
            fs::create_dir_all(SCRATCH)?;
            fs::write(&path, document.to_string())
        };
        write().during(|| format!("writing {}", path.display()))?;
        let operation = Operation::Exec {
            id: id.to_owned(),
            process: path.clone(),
            console: console.as_ref().map(|console| console.path.clone()),
        };
        let outcome = self.start_process(
            &format!("starting a process in container {id}"),
            &operation,
            console,
            process,
        );
        let _ = fs::remove_file(&path);
        outcome
    }

    /// Lets the first process of container `id` run.
    pub(crate) fn start(&self, id: &str) -> Result<()> {
        self.run(
            &format!("starting container {id}"),
            &Operation::Start { id: id.to_owned() },
            &[],
            |_| {},
        )
    }

    /// Ends what still runs in container `id` and frees what the runtime holds. An unknown id counts as done.
    pub(crate) fn delete(&self, id: &str) -> Result<()> {
        self.run(
            &format!("deleting container {id}"),
            &Operation::Delete { id: id.to_owned() },
            &[],
            |_| {},
        )
    }

    fn start_process(
        &self,
        action: &str,
        operation: &Operation,
        console: Option<ConsoleSocket>,
        process: &Arc<Process>,
    ) -> Result<ProcessEnds> {
        let adopt = |pid| {
            process.started(pid);
            let ended = Arc::clone(process);
            self.reaper.adopt(pid, move |exit| ended.ended_with(exit));
        };
        match console {
            Some(console) => {
                self.run(action, operation, &[], adopt)?;
                Ok(ProcessEnds::Console(console.receive()?))
            }
            None => {
                let (ours, child) = stdio::pipes()?;
                self.run(
                    action,
                    operation,
                    &[&child.stdin, &child.stdout, &child.stderr],
                    adopt,
                )?;
                Ok(ours)
            }
        }
    }

    /// Runs one operation to its end. `adopt` gets the pid of the process it left behind.
    fn run(
        &self,
        action: &str,
        operation: &Operation,
        files: &[&OwnedFd],
        adopt: impl FnOnce(u32),
    ) -> Result<()> {
        let failed = || format!("{action}: running the container runtime");
        let (control, theirs) = UnixStream::pair().during(failed)?;
        let (log, their_log) = io::pipe().during(failed)?;
        let (sender, ended) = mpsc::channel();
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(RUNTIME)
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(their_log);
        let pid = self
            .reaper
            .spawn(&mut command, move |code| {
                let _ = sender.send(code);
            })
            .during(failed)?;
        // Our copies of its ends would keep them open.
        drop(command);
        control.set_read_timeout(Some(LIMIT)).during(failed)?;
        let answer =
            control::send(&control, operation, files).and_then(|()| control::receive_answer(&control));
        if let Ok(Answer::Done { pid: Some(left) }) = &answer {
            adopt(*left);
        }
        // The child ends when it sees ours closed.
        drop(control);
        if answer.is_err() {
            let _ = self.reaper.signal(pid, rustix::process::Signal::KILL);
        }
        let code = ended.recv_timeout(LIMIT).unwrap_or(255);
        let log = String::from_utf8_lossy(&drain_now(log.into(), LOG_BYTES))
            .trim_end()
            .to_owned();
        for line in log.lines() {
            tracing::info!(operation = action, "{line}");
        }
        match answer {
            Ok(Answer::Done { .. }) => Ok(()),
            Ok(Answer::Failed { reason }) => Err(AgentError::Runtime {
                action: action.to_owned(),
                reason,
            }),
            Err(error) => Err(AgentError::Runtime {
                action: action.to_owned(),
                reason: format!("the container runtime gave no answer ({error}; exit code {code}): {log}"),
            }),
        }
    }
}

/// A file of operation `number`. As plain processes, several agents share the directory: without the pid one would run
/// another's process.
fn scratch(number: u64, kind: &str) -> PathBuf {
    Path::new(SCRATCH).join(format!("{}-{number}.{kind}", std::process::id()))
}

/// Where a container's console is handed over.
struct ConsoleSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    fn new(number: u64) -> Result<Self> {
        let path = scratch(number, "console");
        let make = || {
            fs::create_dir_all(SCRATCH)?;
            let _ = fs::remove_file(&path);
            UnixListener::bind(&path)
        };
        let listener = make().during(|| format!("listening on {}", path.display()))?;
        Ok(Self { path, listener })
    }

    /// Takes the console. The runtime has sent it by the time it reports success.
    fn receive(&self) -> Result<OwnedFd> {
        let take = || {
            self.listener.set_nonblocking(true)?;
            let (stream, _) = self.listener.accept()?;
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let (_, mut files) = control::receive(&stream)?;
            // Read on, so that the sender sees its message taken.
            let _ = (&stream).read(&mut [0; 1]);
            files
                .pop()
                .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no console came"))
        };
        take().during(|| "taking the console of a container".into())
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
