//! The FIFOs between a command and a container's owner, who opens the other ends.

use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{CWD, Mode, mkfifoat};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::unix::pipe,
    task::JoinHandle,
};

/// Bytes moved at a time.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// The FIFOs, in a directory that goes with them.
pub(super) struct Pipes {
    dir: tempfile::TempDir,
    pub(super) stdin: Option<String>,
    pub(super) stdout: String,
    pub(super) stderr: Option<String>,
}

/// One output on its way to ours.
pub(super) struct Output {
    from: pipe::Receiver,
    to: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Pipes {
    /// Makes them below `place`.
    pub(super) fn make(place: &Path, stdin: bool, stderr: bool) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("exec-")
            .tempdir_in(place)
            .context("making a directory for the streams")?;
        let fifo = |name: &str| -> Result<String> {
            let path = dir.path().join(name);
            mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)
                .with_context(|| format!("making {}", path.display()))?;
            path.to_str()
                .map(str::to_owned)
                .context("the owner's path is not UTF-8")
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

    /// Opens what the container writes, for our standard output and error. Before it writes, or it is not there to open.
    pub(super) fn outputs(&self) -> Result<Vec<Output>> {
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
}

impl Output {
    pub(super) fn copied(self) -> JoinHandle<std::io::Result<()>> {
        tokio::spawn(copy(self.from, self.to))
    }
}

/// Waits until each output is ours: it ends when the owner has handed over what there was.
pub(super) async fn handed_over(outputs: Vec<JoinHandle<std::io::Result<()>>>) -> Result<()> {
    for output in outputs {
        output.await.context("copying output")??;
    }
    Ok(())
}

/// Copies until there is no more to read.
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
