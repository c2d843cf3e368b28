//! `cofferdam exec`: a further process in a running container, with our standard streams.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use cofferdam_runspec::Variable;
use containerd_shim::{
    api::{
        CloseIORequest, DeleteRequest, ExecProcessRequest, KillRequest, ResizePtyRequest, StartRequest,
        WaitRequest,
    },
    protos::{protobuf::well_known_types::any::Any, ttrpc::context::Context},
};
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::unix::pipe,
    task::JoinHandle,
};

use super::client::{Task, told};
use crate::{
    args::ExecArgs,
    signals::{Event, Signals},
    terminal::{self, RawTerminal},
};

/// Bytes moved at a time.
const CHUNK_BYTES: usize = 64 << 10;

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
    let delete = DeleteRequest {
        id: task.id.clone(),
        exec_id,
        ..DeleteRequest::default()
    };
    // Its container may have gone, and it with it.
    let _ = task.client.delete(Context::default(), &delete).await;
    status
}

async fn started(
    task: &Task,
    exec_id: &str,
    args: &ExecArgs,
    pipes: &Pipes,
    signals: &mut Signals,
) -> Result<u8> {
    // Open before it starts, so that nothing of it is lost; read afterwards, when there is somebody who writes.
    let outputs = pipes.outputs()?;
    if args.tty {
        resize(task, exec_id).await;
    }
    let start = StartRequest {
        id: task.id.clone(),
        exec_id: exec_id.to_owned(),
        ..StartRequest::default()
    };
    told(task.client.start(Context::default(), &start).await)?;
    let raw = (args.tty && terminal::is_interactive()).then(RawTerminal::enter);
    let outputs: Vec<_> = outputs.into_iter().map(Output::copied).collect();
    let mut input = pipes.input()?;
    let wait = WaitRequest {
        id: task.id.clone(),
        exec_id: exec_id.to_owned(),
        ..WaitRequest::default()
    };
    let waiting = task.client.wait(Context::default(), &wait);
    tokio::pin!(waiting);
    let exit = loop {
        tokio::select! {
            exit = &mut waiting => break told(exit)?,
            () = finished(&mut input) => close_input(task, exec_id).await?,
            event = signals.next() => match event {
                Event::Resized => resize(task, exec_id).await,
                Event::Signal(number) => pass_on(task, exec_id, number).await,
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

async fn close_input(task: &Task, exec_id: &str) -> Result<()> {
    let close = CloseIORequest {
        id: task.id.clone(),
        exec_id: exec_id.to_owned(),
        stdin: true,
        ..CloseIORequest::default()
    };
    told(task.client.close_io(Context::default(), &close).await).map(drop)
}

async fn pass_on(task: &Task, exec_id: &str, number: i32) {
    let kill = KillRequest {
        id: task.id.clone(),
        exec_id: exec_id.to_owned(),
        signal: u32::try_from(number).unwrap_or_default(),
        ..KillRequest::default()
    };
    if let Err(error) = told(task.client.kill(Context::default(), &kill).await) {
        tracing::warn!("not passed on: {error:#}");
    }
}

async fn resize(task: &Task, exec_id: &str) {
    let Some((rows, columns)) = terminal::size() else {
        return;
    };
    let resize = ResizePtyRequest {
        id: task.id.clone(),
        exec_id: exec_id.to_owned(),
        height: rows.into(),
        width: columns.into(),
        ..ResizePtyRequest::default()
    };
    if let Err(error) = told(task.client.resize_pty(Context::default(), &resize).await) {
        tracing::debug!("the terminal's size: {error:#}");
    }
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

/// The FIFOs between us and the owner.
pub(super) struct Pipes {
    dir: tempfile::TempDir,
    pub(super) stdin: Option<String>,
    pub(super) stdout: String,
    pub(super) stderr: Option<String>,
}

/// One output on its way to ours.
struct Output {
    from: pipe::Receiver,
    to: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Pipes {
    /// In an owner's directory; those for input and error output where they are wanted.
    pub(super) fn make(place: &Path, stdin: bool, stderr: bool) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("exec-")
            .tempdir_in(place)
            .context("making a directory for the streams")?;
        let fifo = |name: &str| -> Result<String> {
            let path = dir.path().join(name);
            mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)
                .with_context(|| format!("making {}", path.display()))?;
            path.to_str().map(str::to_owned).context("the path is not UTF-8")
        };
        Ok(Self {
            stdin: stdin.then(|| fifo("stdin")).transpose()?,
            stdout: fifo("stdout")?,
            stderr: stderr.then(|| fifo("stderr")).transpose()?,
            dir,
        })
    }

    /// A name that no other process of the container has.
    pub(super) fn name(&self) -> String {
        let name = self.dir.path().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn outputs(&self) -> Result<Vec<Output>> {
        let open = |path: &str| {
            pipe::OpenOptions::new()
                .open_receiver(path)
                .with_context(|| format!("opening {path}"))
        };
        let mut outputs = vec![Output {
            from: open(&self.stdout)?,
            to: Box::new(tokio::io::stdout()),
        }];
        if let Some(stderr) = &self.stderr {
            outputs.push(Output {
                from: open(stderr)?,
                to: Box::new(tokio::io::stderr()),
            });
        }
        Ok(outputs)
    }

    fn input(&self) -> Result<Option<JoinHandle<()>>> {
        let Some(stdin) = &self.stdin else { return Ok(None) };
        let fifo = pipe::OpenOptions::new()
            .open_sender(stdin)
            .with_context(|| format!("opening {stdin}"))?;
        Ok(Some(tokio::spawn(async move {
            if let Err(error) = copy(tokio::io::stdin(), fifo).await {
                tracing::debug!(%error, "input ended early");
            }
        })))
    }
}

impl Output {
    fn copied(self) -> JoinHandle<std::io::Result<()>> {
        tokio::spawn(copy(self.from, self.to))
    }
}

async fn copy(
    mut from: impl AsyncRead + Send + Unpin,
    mut to: impl AsyncWrite + Send + Unpin,
) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&chunk[..length]).await?;
        // What a person waits for must not sit in a buffer.
        to.flush().await?;
    }
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
