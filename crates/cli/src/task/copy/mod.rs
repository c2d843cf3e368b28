//! `cofferdam cp`: an archive on its way between this host's files and a container's.
//!
//! The container's end is a process of the guest's agent, which its owner starts as it starts any further process of a
//! container, with FIFOs for its streams. This host's end is a thread here.

mod local;
mod sides;

use std::{fs::File, io, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use cofferdam_copy::CopyError;
use cofferdam_owner::Root;
use cofferdam_task::COPY;
use containerd_shim::{
    api::ExecProcessRequest,
    protos::{protobuf::well_known_types::any::Any, ttrpc::context::Context},
};
use tokio::{io::AsyncReadExt as _, net::unix::pipe, task::JoinHandle};

pub(crate) use self::sides::Copy;
use self::sides::Way;
use super::{
    client::{Process, Task, told},
    pipes::Pipes,
};
use crate::signals::Signals;

/// Most that is taken of what the agent says, in bytes.
const MAX_WORDS: usize = 64 << 10;
/// How long a thread that sends may take to see that nobody reads any more.
const SEND_LIMIT: Duration = Duration::from_secs(5);
const SIGKILL: u32 = 9;

/// The agent's end.
struct Far<'a> {
    process: Process<'a>,
}

/// How it ended.
struct Ended {
    status: u32,
    /// What it said: a line for each thing left out, the last one why it failed.
    words: String,
}

impl Copy {
    /// Copies, and returns when everything is there.
    pub(crate) async fn perform(self, root: &Root) -> Result<()> {
        local::check(&self)?;
        let entry = root.entry(&self.id)?;
        if let (false, Some(ended)) = (entry.is_alive(), entry.ended()) {
            bail!(
                "{} has ended ({}): its files went with its VM",
                self.id,
                ended.status
            );
        }
        let task = Task::of(entry)?;
        let mut signals = Signals::watch().context("watching for signals")?;
        let pipes = Pipes::make(task.entry.dir(), matches!(self.way, Way::In { .. }), true)?;
        let exec_id = pipes.name();
        let far = Far {
            process: task.process(&exec_id),
        };
        far.add(&self, &pipes).await?;
        let copied = tokio::select! {
            copied = far.copied(self, &pipes) => copied,
            number = signals.interrupted() => {
                far.kill().await;
                Err(anyhow!("interrupted by signal {number}; what was copied so far stays"))
            }
        };
        far.process.delete().await;
        copied
    }
}

impl Far<'_> {
    async fn add(&self, copy: &Copy, pipes: &Pipes) -> Result<()> {
        let mut order = Any::new();
        order.type_url = COPY.to_owned();
        order.value = serde_json::to_vec(&copy.order()?)?;
        let request = ExecProcessRequest {
            id: self.process.task.id.clone(),
            exec_id: self.process.exec_id.to_owned(),
            stdin: pipes.stdin.clone().unwrap_or_default(),
            stdout: pipes.stdout.clone(),
            stderr: pipes.stderr.clone().unwrap_or_default(),
            spec: Some(order).into(),
            ..ExecProcessRequest::default()
        };
        told(self.process.task.client.exec(Context::default(), &request).await).map(drop)
    }

    async fn copied(&self, copy: Copy, pipes: &Pipes) -> Result<()> {
        let reader = |path: &str| {
            let opened = pipe::OpenOptions::new().open_receiver(path);
            opened.with_context(|| format!("opening {path}"))
        };
        // Open before it starts, so that nothing of it is lost, and a reader is told of an end that came before it read.
        let (output, rest) = (reader(&pipes.stdout)?, reader(&pipes.stdout)?);
        let words = pipes.stderr.as_deref().map(reader).transpose()?;
        self.process.start().await?;
        let words = tokio::spawn(read_words(words));
        let sends = pipes.stdin.is_some();
        let pipe = match &pipes.stdin {
            Some(path) => {
                let opened = pipe::OpenOptions::new().open_sender(path);
                opened
                    .with_context(|| format!("opening {path}"))?
                    .into_blocking_fd()
            }
            None => output.into_blocking_fd(),
        };
        let pipe = File::from(pipe.context("preparing the pipe to the owner")?);
        let near = tokio::task::spawn_blocking(move || local::run(&copy, pipe));
        let (near, status) = match sends {
            true => self.sent(near).await?,
            false => self.received(near, rest).await?,
        };
        let words = words.await.context("reading the agent's words")?;
        verdict(sends, near, &Ended { status, words })
    }

    /// Until the agent has ended: it may do so before everything is sent.
    async fn sent(&self, mut near: JoinHandle<Result<()>>) -> Result<(Option<Result<()>>, u32)> {
        let waiting = self.wait();
        tokio::pin!(waiting);
        let sent = tokio::select! {
            sent = &mut near => sent.context("sending")?,
            status = &mut waiting => {
                // Nobody reads any more, which it sees at its next write; one that waits for its own input sees nothing.
                let near = tokio::time::timeout(SEND_LIMIT, near).await;
                let near = near.ok().transpose().context("sending")?;
                return Ok((near, status?));
            }
        };
        // Whole or not: an archive that is cut off makes the agent fail.
        self.process.close_input().await?;
        Ok((Some(sent), waiting.await?))
    }

    /// Until the end of the stream, or until what comes cannot be taken: then the agent must not wait for that.
    async fn received(
        &self,
        near: JoinHandle<Result<()>>,
        mut rest: pipe::Receiver,
    ) -> Result<(Option<Result<()>>, u32)> {
        let near = near.await.context("receiving")?;
        if near.is_err() {
            self.kill().await;
            // The owner waits for somebody to take what it has.
            let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        }
        Ok((Some(near), self.wait().await?))
    }

    async fn wait(&self) -> Result<u32> {
        let exit = told(self.process.wait().await);
        exit.map(|exit| exit.exit_status)
            .context("the container's owner went away before everything was copied")
    }

    async fn kill(&self) {
        // It may have ended by itself.
        if self.process.kill(SIGKILL).await.is_ok() {
            let _ = self.wait().await;
        }
    }
}

/// What the agent says, as far as it can be shown: it comes from the guest.
async fn read_words(from: Option<pipe::Receiver>) -> String {
    let mut words = Vec::new();
    if let Some(mut from) = from {
        let mut chunk = vec![0; 4096];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            let room = MAX_WORDS.saturating_sub(words.len());
            words.extend_from_slice(&chunk[..length.min(room)]);
        }
    }
    let text = String::from_utf8_lossy(&words);
    let shown = |letter: char| {
        if letter.is_control() && letter != '\n' {
            '\u{fffd}'
        } else {
            letter
        }
    };
    text.trim_end().chars().map(shown).collect()
}

/// Whose error is the cause, and whose only follows from it. `near` is absent for a thread that was given up.
fn verdict(sends: bool, near: Option<Result<()>>, far: &Ended) -> Result<()> {
    let (before, last) = far.words.rsplit_once('\n').unwrap_or(("", &far.words));
    let notes = if far.status == 0 {
        far.words.as_str()
    } else {
        before
    };
    for line in notes.lines() {
        eprintln!("cofferdam: {line}");
    }
    let silent = || match far.status {
        137 => anyhow!("the guest's end was killed, or its VM is gone"),
        status => anyhow!("the guest's end failed with status {status}"),
    };
    match (near, far.status) {
        (None | Some(Ok(())), 0) => Ok(()),
        (Some(Err(error)), 0) => Err(error),
        // Nobody read on, or the stream broke off, because of what the agent says.
        (Some(Err(error)), _) if !follows(sends, &error) => Err(error),
        (_, _) if !last.is_empty() => Err(anyhow!("{last}")),
        (Some(Err(error)), _) => Err(error.context(silent())),
        (_, _) => Err(silent()),
    }
}

/// Whether an error here only says that the other end has ended.
fn follows(sends: bool, error: &anyhow::Error) -> bool {
    let broken = error.chain().any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    });
    let cut = matches!(
        error.downcast_ref::<CopyError>(),
        Some(CopyError::Nothing | CopyError::Archive(_))
    );
    if sends { broken } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sends: bool, near: Option<Result<()>>, status: u32, words: &str) -> String {
        let words = words.to_owned();
        let far = Ended { status, words };
        format!("{:#}", verdict(sends, near, &far).unwrap_err())
    }

    #[test]
    fn the_cause_is_told_and_not_what_follows_from_it() {
        let broken = || Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        assert_eq!(
            told(true, Some(broken()), 1, "a note\n/x: no space"),
            "/x: no space"
        );
        assert_eq!(told(true, Some(Ok(())), 1, "/x: no space"), "/x: no space");
        assert_eq!(
            told(true, Some(Err(anyhow!("a: shrank"))), 1, "cut off"),
            "a: shrank"
        );
        let nothing = || Some(Err(CopyError::Nothing.into()));
        assert_eq!(told(false, nothing(), 1, "/x: No such file"), "/x: No such file");
        assert_eq!(
            told(false, nothing(), 137, ""),
            "the guest's end was killed, or its VM is gone: nothing came"
        );
        assert_eq!(told(false, Some(Err(anyhow!("disk full"))), 137, ""), "disk full");
        let words = "left out".to_owned();
        verdict(false, Some(Ok(())), &Ended { status: 0, words }).unwrap();
    }
}
