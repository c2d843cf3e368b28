//! The far ends of a process's standard streams: FIFOs and files on the host, or a logger ([`crate::logger`]).
//!
//! A FIFO for output is opened for reading too, so that a reader that goes away, or has not come yet, does not end the
//! stream: what is written waits in the FIFO, and when that is full the process waits. A FIFO for input is held open for
//! writing until [`StdinGate`] is closed, so that a client that comes and goes does not end the process's input.

use std::{
    io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use cofferdam_container::Stdio;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::unix::pipe,
};

use crate::{
    PodError, ProcessName,
    logger::{Logger, is_logger, unescaped},
};

/// Where a process's streams lead. An absent one is /dev/null.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// What it reads: the path of a FIFO or file.
    pub stdin: Option<String>,
    /// Where its output goes: the path of a FIFO or file that is there; `file://` and a path; or `binary://`, the path of a
    /// logger and its arguments as a query, which takes both outputs.
    pub stdout: Option<String>,
    /// Where its error output goes; unused with a terminal. With a logger for the output, the same or nothing.
    pub stderr: Option<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
}

/// Keeps an input open until it is dropped.
#[derive(Default)]
pub(crate) struct StdinGate {
    _writer: Option<Box<dyn Send>>,
}

/// Streams that somebody else has made, instead of those at a process's endpoints.
#[derive(Default)]
pub struct Streams {
    /// The streams.
    pub stdio: Stdio,
    /// What keeps the input open, if anything but its own end does: dropped by [`Pod::close_stdin`](crate::Pod::close_stdin).
    pub keeps_input: Option<Box<dyn Send>>,
}

/// Endpoints that are open.
#[derive(Default)]
pub(crate) struct Opened {
    pub(crate) stdio: Stdio,
    pub(crate) gate: StdinGate,
    pub(crate) logger: Option<Logger>,
}

impl From<Streams> for Opened {
    fn from(streams: Streams) -> Self {
        Self {
            stdio: streams.stdio,
            gate: StdinGate {
                _writer: streams.keeps_input,
            },
            logger: None,
        }
    }
}

impl Endpoints {
    /// Opens them, for this process of this namespace.
    pub(crate) async fn open(&self, namespace: &str, name: &ProcessName) -> Result<Opened, PodError> {
        let mut opened = Opened::default();
        if let Some(uri) = &self.stdin {
            let (path, _) = path_of("stdin", uri)?;
            let (reader, writer) = input(&path).map_err(refused("stdin", &path))?;
            opened.stdio.stdin = Some(reader);
            opened.gate = StdinGate {
                _writer: writer.map(|writer| Box::new(writer) as _),
            };
        }
        let mut stderr = self.stderr.as_ref().filter(|_| !self.terminal);
        match &self.stdout {
            Some(uri) if is_logger(uri) => {
                let started = Logger::start(uri, namespace, name).await?;
                opened.logger = Some(started.logger);
                opened.stdio.stdout = Some(started.stdout);
                if !self.terminal && stderr.is_none_or(|stderr| stderr == uri) {
                    opened.stdio.stderr = Some(started.stderr);
                    stderr = None;
                }
            }
            Some(uri) => opened.stdio.stdout = Some(output("stdout", uri)?),
            None => {}
        }
        if let Some(uri) = stderr {
            opened.stdio.stderr = Some(output("stderr", uri)?);
        }
        Ok(opened)
    }
}

fn refused(stream: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PodError {
    let path = path.to_owned();
    move |source| PodError::Stream { stream, path, source }
}

/// The path, and whether a file is made there, with its directory, if there is none: a FIFO that is missing was lost.
fn path_of(stream: &'static str, uri: &str) -> Result<(PathBuf, bool), PodError> {
    match uri.split_once("://") {
        None => Ok((uri.into(), false)),
        Some(("file", path)) => Ok((unescaped(path), true)),
        Some(_) => Err(PodError::StreamKind {
            stream,
            uri: uri.to_owned(),
        }),
    }
}

fn is_fifo(path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(found.file_type().is_fifo()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;

fn input(path: &Path) -> io::Result<(Reader, Option<pipe::Sender>)> {
    if !is_fifo(path)? {
        let file = std::fs::File::open(path)?;
        return Ok((Box::new(tokio::fs::File::from_std(file)), None));
    }
    // In this order: a FIFO opens for writing only once somebody reads.
    let reader = pipe::OpenOptions::new().open_receiver(path)?;
    let writer = pipe::OpenOptions::new().open_sender(path)?;
    Ok((Box::new(reader), Some(writer)))
}

type Writer = Box<dyn AsyncWrite + Send + Unpin>;

fn output(stream: &'static str, uri: &str) -> Result<Writer, PodError> {
    let (path, make) = path_of(stream, uri)?;
    opened(&path, make).map_err(refused(stream, &path))
}

fn opened(path: &Path, make: bool) -> io::Result<Writer> {
    if make && let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    if is_fifo(path)? {
        let sender = pipe::OpenOptions::new().read_write(true).open_sender(path)?;
        return Ok(Box::new(sender));
    }
    let file = std::fs::OpenOptions::new().append(true).create(make).open(path)?;
    Ok(Box::new(tokio::fs::File::from_std(file)))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn open(endpoints: &Endpoints) -> Result<Opened, PodError> {
        endpoints.open("tests", &ProcessName::init("c")).await
    }

    async fn refusal(endpoints: &Endpoints) -> String {
        open(endpoints).await.err().unwrap().to_string()
    }

    fn fifo(dir: &Path, name: &str) -> String {
        let path = dir.join(name);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn input_ends_when_the_gate_is_closed_and_not_when_a_client_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path(), "stdin");
        let endpoints = Endpoints {
            stdin: Some(path.clone()),
            ..Endpoints::default()
        };
        let Opened { stdio, gate, .. } = open(&endpoints).await.unwrap();
        let mut reader = stdio.stdin.unwrap();
        for word in ["first", "again"] {
            let mut client = pipe::OpenOptions::new().open_sender(&path).unwrap();
            client.write_all(word.as_bytes()).await.unwrap();
            drop(client);
            let mut read = [0; 5];
            reader.read_exact(&mut read).await.unwrap();
            assert_eq!(read, word.as_bytes());
        }
        drop(gate);
        assert_eq!(reader.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn output_waits_in_the_fifo_for_whoever_comes_to_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path(), "stdout");
        let endpoints = Endpoints {
            stdout: Some(path.clone()),
            ..Endpoints::default()
        };
        let opened = open(&endpoints).await.unwrap();
        let mut writer = opened.stdio.stdout.unwrap();
        writer.write_all(b"early").await.unwrap();
        let mut reader = pipe::OpenOptions::new().open_receiver(&path).unwrap();
        let mut read = [0; 5];
        reader.read_exact(&mut read).await.unwrap();
        drop(reader);
        writer.write_all(b"and later").await.unwrap();
        assert_eq!(&read, b"early");
    }

    #[tokio::test]
    async fn a_file_is_appended_to_and_other_kinds_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "before\n").unwrap();
        let endpoints = Endpoints {
            stdout: Some(format!("file://{}", path.display()).replace("/log", "/lo%67")),
            ..Endpoints::default()
        };
        let mut writer = open(&endpoints).await.unwrap().stdio.stdout.unwrap();
        writer.write_all(b"after\n").await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\nafter\n");
        let made = dir.path().join("not/yet/there");
        let endpoints = Endpoints {
            stdout: Some(format!("file://{}", made.display())),
            ..Endpoints::default()
        };
        open(&endpoints).await.unwrap();
        assert!(made.exists());
        let missing = dir.path().join("missing");
        let endpoints = Endpoints {
            stdout: Some(missing.display().to_string()),
            ..Endpoints::default()
        };
        let refused = refusal(&endpoints).await;
        assert!(refused.starts_with("opening stdout at "), "{refused}");
        assert!(!missing.exists());
        for uri in ["binary:///bin/logger", "ftp://host/log"] {
            let endpoints = Endpoints {
                stderr: Some(uri.to_owned()),
                ..Endpoints::default()
            };
            let refused = refusal(&endpoints).await;
            assert!(
                refused.starts_with(&format!("stderr at {uri}: only a FIFO, a file, file://")),
                "{refused}"
            );
        }
    }
}
