//! `cofferdam attach` and `cofferdam start`: a detached container's streams, for as long as somebody wants them.

use anyhow::{Context as _, Result, bail};
use cofferdam_owner::control::{self, Attached, Attachment, Question};
use containerd_shim::api::Status;
use tokio::net::unix::pipe;

use super::{
    client::{Task, told},
    detach_keys::DetachKeys,
    input::{Typed, finished, typed},
    pipes::{Output, Pipes, handed_over},
    remove,
};
use crate::{
    signals::{Event, Signals},
    terminal::{self, RawTerminal},
};

/// How somebody attaches.
pub(super) struct Wishes {
    /// Whether our standard input is the container's.
    pub(super) input: bool,
    /// Whether signals are passed on; otherwise they end the command only.
    pub(super) signals: bool,
    pub(super) keys: DetachKeys,
    /// Whether the container is to be started then.
    pub(super) start: bool,
}

/// Attaches until the container has ended, and returns its status; 0 where the keys let go of it.
pub(super) async fn attach(task: &Task, wishes: Wishes) -> Result<u8> {
    let mut signals = Signals::watch().context("watching for signals")?;
    let state = task.state().await?;
    let (id, init) = (&task.id, task.init());
    match state.status.enum_value_or_default() {
        Status::STOPPED => bail!("{id} has ended"),
        Status::CREATED if !wishes.start => bail!("{id} was not started: cofferdam start --attach {id}"),
        _ => {}
    }
    let pipes = Pipes::make(task.entry.dir(), wishes.input, !state.terminal)?;
    // Open before anything is written, so that nothing is lost of it.
    let outputs = pipes.outputs()?;
    let stdin = pipes.stdin.as_deref();
    // Both ways: there is nobody yet who reads it.
    let fifo = stdin
        .map(|path| pipe::OpenOptions::new().read_write(true).open_sender(path))
        .transpose()
        .context("opening the input")?;
    let question = Question::Attach(Attachment {
        stdin: pipes.stdin.clone().map(Into::into),
        stdout: pipes.stdout.clone().into(),
        stderr: pipes.stderr.clone().map(Into::into),
    });
    let attached: Attached = control::ask(task.entry.dir(), &question)?;
    let outputs: Vec<_> = outputs.into_iter().map(Output::copied).collect();
    let raw = (state.terminal && terminal::is_interactive()).then(RawTerminal::enter);
    if state.terminal {
        init.resize().await;
    }
    if wishes.start {
        init.start().await?;
    }
    let typing = raw.is_some();
    let mut input = fifo
        .filter(|_| attached.input)
        .map(|fifo| tokio::spawn(typed(fifo, typing.then_some(wishes.keys))));
    let waiting = init.wait();
    tokio::pin!(waiting);
    let exit = loop {
        tokio::select! {
            exit = &mut waiting => break exit,
            how = finished(&mut input) => match how {
                Typed::Detached => return Ok(0),
                // A terminal has no end to pass on.
                Typed::End if state.terminal => {}
                Typed::End => init.close_input().await?,
            },
            event = signals.next() => match event {
                Event::Resized => init.resize().await,
                Event::Signal(number) if wishes.signals => init.pass_on(number).await,
                Event::Signal(number) => return Ok(128 + u8::try_from(number).unwrap_or(0)),
            },
        }
    };
    if let Some(input) = input {
        input.abort();
    }
    handed_over(outputs).await?;
    drop(raw);
    remove::gone(&task.entry).await?;
    match (exit, task.entry.ended()) {
        (Ok(exit), _) => Ok(u8::try_from(exit.exit_status).unwrap_or(u8::MAX)),
        // The owner was gone before it could answer.
        (Err(_), Some(ended)) => Ok(ended.status),
        (Err(error), None) => told(Err(error)),
    }
}
