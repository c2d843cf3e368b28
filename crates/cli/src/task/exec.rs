//! `cofferdam exec`: a further process in a running container, with our standard streams.

use anyhow::{Context as _, Result, bail};
use cofferdam_runspec::Variable;
use containerd_shim::{
    api::ExecProcessRequest,
    protos::{protobuf::well_known_types::any::Any, ttrpc::context::Context},
};
use serde_json::{Map, Value, json};
use tokio::net::unix::pipe;

use super::{
    client::{Task, told},
    input::{finished, typed},
    pipes::{Output, Pipes, handed_over},
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
        stdin: pipes.stdin.clone().unwrap_or_default(),
        stdout: pipes.stdout.clone(),
        stderr: pipes.stderr.clone().unwrap_or_default(),
        spec: Some(spec).into(),
        ..ExecProcessRequest::default()
    };
    told(task.client.exec(Context::default(), &added).await)?;
    let status = started(task, &exec_id, args, &pipes, &mut signals).await;
    task.process(&exec_id).delete().await;
    status
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
    let open = |path: &str| {
        pipe::OpenOptions::new()
            .open_sender(path)
            .with_context(|| format!("opening {path}"))
    };
    let fifo = pipes.stdin.as_deref().map(open).transpose()?;
    let mut input = fifo.map(|fifo| tokio::spawn(typed(fifo, None)));
    let waiting = process.wait();
    tokio::pin!(waiting);
    let exit = loop {
        tokio::select! {
            exit = &mut waiting => break told(exit)?,
            _ = finished(&mut input) => process.close_input().await?,
            event = signals.next() => match event {
                Event::Resized => process.resize().await,
                Event::Signal(number) => process.pass_on(number).await,
            },
        }
    };
    if let Some(input) = input {
        input.abort();
    }
    handed_over(outputs).await?;
    drop(raw);
    Ok(u8::try_from(exit.exit_status).unwrap_or(u8::MAX))
}

/// The process as the OCI spec has it. What is not said is the container's own: the guest fills it in.
fn process(args: &ExecArgs) -> Result<Value> {
    let mut process = Map::new();
    process.insert("args".to_owned(), json!(args.command));
    process.insert("terminal".to_owned(), args.tty.into());
    if let Some(dir) = &args.workdir {
        if !dir.starts_with('/') {
            bail!("--workdir {dir}: it is an absolute path");
        }
        process.insert("cwd".to_owned(), dir.clone().into());
    }
    if let Some(user) = &args.user {
        // The guest looks it up, in the container's own files: numbers too, for the groups and the home they have there.
        process.insert("user".to_owned(), json!({ "username": user }));
    }
    if !args.env.is_empty() {
        process.insert("cofferdamEnv".to_owned(), variables(&args.env)?.into());
    }
    Ok(process.into())
}

/// Variables as the guest takes them: `NAME=value`, or `NAME` for one that is not to be there.
fn variables(texts: &[String]) -> Result<Vec<String>> {
    let own = |name: &str| std::env::var(name).ok();
    let parsed = texts.iter().map(|text| Variable::parse(text, &own));
    let text = |variable| match variable {
        Variable::Set(name, value) => format!("{name}={value}"),
        Variable::Unset(name) => name,
    };
    Ok(parsed
        .map(|variable| variable.map(text))
        .collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_set_or_taken_away() {
        let texts = ["A=b=c", "EMPTY=", "COFFERDAM_NOBODY_HAS_THIS"].map(str::to_owned);
        assert_eq!(variables(&texts).unwrap(), texts);
        assert_eq!(
            variables(&["PATH".to_owned()]).unwrap(),
            [format!("PATH={}", std::env::var("PATH").unwrap())]
        );
        assert!(variables(&["=x".to_owned()]).is_err());
    }
}
