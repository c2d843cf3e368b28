//! `cofferdam exec`: a further process in a running container, with our standard streams.

use std::path::Path;

use anyhow::{Context as _, Result};
use containerd_shim::{
    api::{DeleteRequest, ExecProcessRequest},
    protos::{protobuf::well_known_types::any::Any, ttrpc::context::Context},
};
use serde_json::{Map, Value, json};
use tokio::{net::unix::pipe, task::JoinHandle};

use super::{
    client::{Task, told},
    pipes::{Output, Pipes, copy},
};
use crate::{
    args::ExecArgs,
    signals::{Event, Signals},
    terminal::{self, RawTerminal},
};

/// Runs it, and returns its status.
pub(crate) async fn execute(task: &Task, args: &ExecArgs) -> Result<u8> {
    let mut signals = Signals::watch().context("watching for signals")?;
    let process = process(args)?;
    let pipes = Pipes::make(task.entry.dir(), args.interactive, !args.tty)?;
    let exec_id = pipes.name();
    let mut spec = Any::new();
    spec.value = process.to_string().into_bytes();
    let added = ExecProcessRequest {
        id: task.id.clone(),
        exec_id: exec_id.clone(),
        terminal: args.tty,
        stdin: text(pipes.stdin.as_deref())?,
        stdout: text(Some(&pipes.stdout))?,
        stderr: text(pipes.stderr.as_deref())?,
        spec: Some(spec).into(),
        ..ExecProcessRequest::default()
    };
    told(task.client.exec(Context::default(), &added).await)?;
    let status = started(task, &exec_id, args, &pipes, &mut signals).await;
    let delete = DeleteRequest {
        id: task.id.clone(),
        exec_id,
        ..DeleteRequest::default()
    };
    // Its container may have gone, and it with it.
    let _ = task.client.delete(Context::default(), &delete).await;
    status
}

fn text(path: Option<&Path>) -> Result<String> {
    let text = path.map_or(Some(""), Path::to_str);
    Ok(text.context("the owner's path is not UTF-8")?.to_owned())
}

async fn started(
    task: &Task,
    exec_id: &str,
    args: &ExecArgs,
    pipes: &Pipes,
    signals: &mut Signals,
) -> Result<u8> {
    let process = task.process(exec_id);
    // Open before it starts, so that nothing of it is lost; read afterwards, when there is somebody who writes.
    let outputs = pipes.outputs()?;
    if args.tty {
        process.resize().await;
    }
    process.start().await?;
    let raw = (args.tty && terminal::is_interactive()).then(RawTerminal::enter);
    let outputs: Vec<_> = outputs.into_iter().map(Output::copied).collect();
    let mut input = input(pipes)?;
    let waiting = process.wait();
    tokio::pin!(waiting);
    let exit = loop {
        tokio::select! {
            exit = &mut waiting => break told(exit)?,
            () = finished(&mut input) => process.close_input().await?,
            event = signals.next() => match event {
                Event::Resized => process.resize().await,
                Event::Signal(number) => process.pass_on(number).await,
            },
        }
    };
    if let Some(input) = input {
        input.abort();
    }
    for output in outputs {
        // Each ends when the owner has handed over what there was.
        output.await.context("copying output")??;
    }
    drop(raw);
    Ok(u8::try_from(exit.exit_status).unwrap_or(u8::MAX))
}

/// Waits until all input was sent, once; for ever where there is none.
async fn finished(input: &mut Option<JoinHandle<()>>) {
    match input {
        Some(sending) => {
            // Whether it could be sent is the process's business.
            let _ = sending.await;
            *input = None;
        }
        None => std::future::pending().await,
    }
}

/// The process as the OCI spec has it. What is not said is the container's own: the guest fills it in.
fn process(args: &ExecArgs) -> Result<Value> {
    let mut process = Map::new();
    process.insert("args".to_owned(), json!(args.command));
    process.insert("terminal".to_owned(), args.tty.into());
    if let Some(dir) = &args.workdir {
        process.insert("cwd".to_owned(), dir.clone().into());
    }
    if let Some(user) = &args.user {
        process.insert("user".to_owned(), numbers(user)?);
    }
    Ok(process.into())
}

fn numbers(user: &str) -> Result<Value> {
    let wrong = || format!("--user {user}: it is UID or UID:GID, in numbers");
    let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
    let number = |text: &str| text.parse::<u32>().with_context(wrong);
    Ok(json!({ "uid": number(uid)?, "gid": number(gid)? }))
}

fn input(pipes: &Pipes) -> Result<Option<JoinHandle<()>>> {
    let Some(stdin) = &pipes.stdin else {
        return Ok(None);
    };
    let fifo = pipe::OpenOptions::new()
        .open_sender(stdin)
        .with_context(|| format!("opening {}", stdin.display()))?;
    Ok(Some(tokio::spawn(async move {
        if let Err(error) = copy(tokio::io::stdin(), fifo).await {
            tracing::debug!(%error, "input ended early");
        }
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        assert_eq!(numbers("7").unwrap(), json!({ "uid": 7, "gid": 0 }));
        assert_eq!(numbers("7:8").unwrap(), json!({ "uid": 7, "gid": 8 }));
        assert!(numbers("web").is_err() && numbers("7:").is_err());
    }
}
