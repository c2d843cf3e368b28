//! One QEMU process: started so that it dies with us, watched so that its end is noticed at once.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{oneshot, watch};

use crate::tether::{self, Surroundings};

/// A child process. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Names this very process even after its number was given to another.
    pidfd: OwnedFd,
    id: u32,
    ended: watch::Receiver<Option<ExitStatus>>,
}

/// The process and the reading ends of its output.
pub(crate) struct Spawned {
    pub(crate) process: Process,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Process {
    /// Starts `program` with `stdin` as its file descriptor 0, in a session of its own: a terminal's Ctrl-C does
    /// not reach it. Of the environment it gets `PATH` alone, and of our open files those of `surroundings`, which stay open
    /// here until it has started.
    ///
    /// The kernel ties a child's life to the *thread* that started it, so a thread is kept for just that.
    pub(crate) async fn spawn(
        program: &OsStr,
        arguments: Vec<OsString>,
        stdin: OwnedFd,
        surroundings: Surroundings,
    ) -> io::Result<Spawned> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        tether::tie_to_calling_thread(&mut command, surroundings);
        let (started, start) = oneshot::channel();
        let (end, ended) = watch::channel(None);
        std::thread::Builder::new()
            .name("qemu-parent".to_owned())
            .spawn(move || {
                let mut child = match spawn_child(&mut command) {
                    Ok((child, parts)) => {
                        // The command holds copies of the child's ends.
                        drop(command);
                        let mut child = child;
                        if started.send(Ok(parts)).is_err() {
                            // Whoever wanted it has gone. The child is ours and not yet waited for.
                            let _ = child.kill();
                        }
                        child
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                        return;
                    }
                };
                match child.wait() {
                    Ok(status) => drop(end.send_replace(Some(status))),
                    // The sender is dropped, which tells the same with less.
                    Err(error) => tracing::error!(%error, "waiting for QEMU failed"),
                }
            })?;
        let (id, pidfd, stdout, stderr) = start
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the thread that starts QEMU panicked")))?;
        Ok(Spawned {
            process: Self { pidfd, id, ended },
            stdout,
            stderr,
        })
    }

    /// Its process number.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Kills it, if it still lives.
    pub(crate) fn kill(&self) {
        if self.ended.borrow().is_some() {
            return;
        }
        if let Err(error) = pidfd_send_signal(self.pidfd.as_fd(), Signal::KILL) {
            // It ended by itself in this moment.
            tracing::debug!(%error, "QEMU could not be killed");
        }
    }

    /// Resolves when it has ended. `None` if the system would not tell how.
    pub(crate) async fn ended(&self) -> Option<ExitStatus> {
        let mut ended = self.ended.clone();
        ended
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|status| *status)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

type Parts = (u32, OwnedFd, OwnedFd, OwnedFd);

fn spawn_child(command: &mut Command) -> io::Result<(Child, Parts)> {
    let mut child = command.spawn()?;
    let parts = parts(&mut child);
    match parts {
        Ok(parts) => Ok((child, parts)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

fn parts(child: &mut Child) -> io::Result<Parts> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidData)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("the child has no output pipes"));
    };
    Ok((child.id(), pidfd, stdout.into(), stderr.into()))
}

/// How a process ended, in words.
pub(crate) fn in_words(status: Option<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with status {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
        None => "ended in an unknown way".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn shell(script: &str) -> Spawned {
        let (stdin, _) = std::os::unix::net::UnixStream::pair().expect("a pair");
        Process::spawn(
            "sh".as_ref(),
            vec!["-c".into(), script.into()],
            stdin.into(),
            Surroundings::default(),
        )
        .await
        .expect("sh starts")
    }

    #[tokio::test]
    async fn its_end_is_told_in_words() {
        let ended = shell("exit 3").await.process.ended().await;
        assert_eq!(in_words(ended), "exited with status 3");
        let ended = shell("kill -9 $$").await.process.ended().await;
        assert_eq!(in_words(ended), "killed by signal 9");
    }

    #[tokio::test]
    async fn missing_program_is_an_error() {
        let (stdin, _) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let result = Process::spawn(
            "/nonexistent/qemu".as_ref(),
            Vec::new(),
            stdin.into(),
            Surroundings::default(),
        )
        .await;
        assert_eq!(
            result.err().map(|error| error.kind()),
            Some(io::ErrorKind::NotFound)
        );
    }

    #[tokio::test]
    async fn dropping_it_kills_it() {
        let Spawned { process, .. } = shell("exec sleep 60").await;
        let mut ended = process.ended.clone();
        drop(process);
        let told = tokio::time::timeout(Duration::from_secs(10), ended.wait_for(Option::is_some)).await;
        assert_eq!(
            in_words(*told.expect("in time").expect("told")),
            "killed by signal 9"
        );
    }

    #[tokio::test]
    async fn it_has_the_files_it_is_to_inherit_and_no_others() {
        use std::os::fd::AsRawFd;
        let (ours, theirs) = (std::fs::File::open("/dev/null"), std::fs::File::open("/dev/zero"));
        let (ours, theirs) = (ours.expect("there"), theirs.expect("there"));
        let script = format!(
            "test -e /proc/self/fd/{} && exit 1; test /proc/self/fd/{} -ef /dev/zero",
            ours.as_raw_fd(),
            theirs.as_raw_fd()
        );
        let (stdin, _) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let arguments = vec!["-c".into(), script.into()];
        let surroundings = Surroundings {
            files: vec![theirs.as_raw_fd()],
            apart: false,
        };
        let spawned = Process::spawn("sh".as_ref(), arguments, stdin.into(), surroundings).await;
        let ended = spawned.expect("sh starts").process.ended().await;
        assert_eq!(in_words(ended), "exited with status 0");
    }

    #[tokio::test]
    async fn it_has_this_hosts_network_unless_it_is_apart() {
        // Only the superuser can part a process from it.
        let can_part = rustix::process::geteuid().is_root();
        let own = std::fs::read_link("/proc/self/ns/net").expect("there");
        let script = format!("test $(readlink /proc/self/ns/net) = '{}'", own.display());
        for (apart, parted) in [(false, false), (true, can_part)] {
            let (stdin, _) = std::os::unix::net::UnixStream::pair().expect("a pair");
            let surroundings = Surroundings {
                apart,
                ..Surroundings::default()
            };
            let arguments = vec!["-c".into(), script.clone().into()];
            let spawned = Process::spawn("sh".as_ref(), arguments, stdin.into(), surroundings).await;
            let ended = spawned.expect("sh starts").process.ended().await;
            let expected = format!("exited with status {}", u8::from(parted));
            assert_eq!(in_words(ended), expected);
        }
    }

    #[tokio::test]
    async fn it_leads_a_session_of_its_own() {
        let Spawned { process, .. } = shell("exec sleep 60").await;
        let pid = Pid::from_raw(process.id() as i32).expect("a number");
        assert_eq!(rustix::process::getsid(Some(pid)).expect("alive"), pid);
    }
}
