//! The far ends of a process's standard streams: FIFOs and files on the host.
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

use crate::PodError;

/// Where a process's streams lead. An absent one is /dev/null.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// What it reads: the path of a FIFO or file.
    pub stdin: Option<String>,
    /// Where its output goes: the path of a FIFO or file that is there, or `file://` and a path.
    pub stdout: Option<String>,
    /// Where its error output goes; unused with a terminal.
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

impl Streams {
    pub(crate) fn into_parts(self) -> (Stdio, StdinGate) {
        let gate = StdinGate {
            _writer: self.keeps_input,
        };
        (self.stdio, gate)
    }
}

impl Endpoints {
    /// Opens them.
    pub(crate) fn open(&self) -> Result<(Stdio, StdinGate), PodError> {
        let mut stdio = Stdio::default();
        let mut gate = StdinGate::default();
        if let Some(uri) = &self.stdin {
            let (path, _) = path_of("stdin", uri)?;
            let (reader, writer) = input(&path).map_err(refused("stdin", &path))?;
            stdio.stdin = Some(reader);
            gate = StdinGate {
                _writer: writer.map(|writer| Box::new(writer) as _),
            };
        }
        if let Some(uri) = &self.stdout {
            let (path, make) = path_of("stdout", uri)?;
            stdio.stdout = Some(output(&path, make).map_err(refused("stdout", &path))?);
        }
        if let Some(uri) = self.stderr.as_ref().filter(|_| !self.terminal) {
            let (path, make) = path_of("stderr", uri)?;
            stdio.stderr = Some(output(&path, make).map_err(refused("stderr", &path))?);
        }
        Ok((stdio, gate))
    }
}

fn refused(stream: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PodError {
    let path = path.to_owned();
    move |source| PodError::Stream { stream, path, source }
}

/// The path, and whether a file is made there if there is none: a FIFO that is missing was lost.
fn path_of(stream: &'static str, uri: &str) -> Result<(PathBuf, bool), PodError> {
    match uri.split_once("://") {
        None => Ok((uri.into(), false)),
        Some(("file", path)) => Ok((path.into(), true)),
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

fn output(path: &Path, make: bool) -> io::Result<Box<dyn AsyncWrite + Send + Unpin>> {
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
        let (stdio, gate) = endpoints.open().unwrap();
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
        let (stdio, _gate) = endpoints.open().unwrap();
        let mut writer = stdio.stdout.unwrap();
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
            stdout: Some(format!("file://{}", path.display())),
            ..Endpoints::default()
        };
        let mut writer = endpoints.open().unwrap().0.stdout.unwrap();
        writer.write_all(b"after\n").await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\nafter\n");
        let missing = dir.path().join("missing");
        let endpoints = Endpoints {
            stdout: Some(missing.display().to_string()),
            ..Endpoints::default()
        };
        let refused = endpoints.open().err().unwrap().to_string();
        assert!(refused.starts_with("opening stdout at "), "{refused}");
        assert!(!missing.exists());
        let endpoints = Endpoints {
            stderr: Some("binary:///bin/logger".to_owned()),
            ..Endpoints::default()
        };
        let refused = endpoints.open().err().unwrap().to_string();
        assert_eq!(
            refused,
            "stderr at binary:///bin/logger: only a FIFO, a file and file:// are served"
        );
    }
}
