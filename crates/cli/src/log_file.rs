//! A container's output in a file: a line each, as Kubernetes' container runtimes write it.
//!
//! `2026-01-02T03:04:05.678901234Z stdout F text`; `P` instead of `F` where the line goes on in the next entry.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader, DuplexStream},
    task::JoinHandle,
};

/// The file's name in its owner's directory.
const NAME: &str = "log";
/// The longest text of one entry, in bytes.
const MAX_TEXT_BYTES: u64 = 16 << 10;
/// Bytes on their way to the file.
const BUFFER_BYTES: usize = 64 << 10;

/// Where an owner's log is.
pub(crate) fn path_in(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// A log that is being written.
pub(crate) struct LogFile {
    file: Arc<Mutex<File>>,
    streams: Vec<JoinHandle<io::Result<()>>>,
}

impl LogFile {
    /// Makes it, or goes on with it.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path_in(dir))?;
        Ok(Self {
            file: Arc::new(Mutex::new(file)),
            streams: Vec::new(),
        })
    }

    /// What is written here comes into the log as `name`'s.
    pub(crate) fn stream(&mut self, name: &'static str) -> DuplexStream {
        let (writer, reader) = tokio::io::duplex(BUFFER_BYTES);
        let file = self.file.clone();
        self.streams.push(tokio::spawn(entries(name, reader, file)));
        writer
    }

    /// Waits until everything that was written is in the file. The streams' writers are closed before.
    pub(crate) async fn finish(self) -> io::Result<()> {
        for stream in self.streams {
            stream.await.map_err(io::Error::other)??;
        }
        Ok(())
    }
}

async fn entries(name: &str, reader: impl AsyncRead + Unpin, file: Arc<Mutex<File>>) -> io::Result<()> {
    let mut reader = BufReader::new(reader);
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = (&mut reader)
            .take(MAX_TEXT_BYTES)
            .read_until(b'\n', &mut text)
            .await?;
        if read == 0 {
            return Ok(());
        }
        let whole = text.pop_if(|last| *last == b'\n').is_some();
        let at = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let mut entry = format!("{at} {name} {} ", if whole { 'F' } else { 'P' }).into_bytes();
        entry.extend_from_slice(&text);
        entry.push(b'\n');
        // One write an entry: those of two streams do not mix.
        file.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&entry)?;
    }
}

/// One entry of a log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) at: &'a str,
    pub(crate) is_error: bool,
    /// With the end of its line, if the line ends here.
    pub(crate) text: Vec<u8>,
}

impl<'a> Entry<'a> {
    /// Reads one line, without its end. `None` for what is no entry.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let at = std::str::from_utf8(parts.next()?).ok()?;
        let is_error = match parts.next()? {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        let whole = parts.next()? == b"F";
        let mut text = parts.next()?.to_vec();
        if whole {
            text.push(b'\n');
        }
        Some(Self { at, is_error, text })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_written_comes_back_line_by_line_whatever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(dir.path()).unwrap();
        let (mut out, mut err) = (log.stream("stdout"), log.stream("stderr"));
        let long = vec![b'x'; 40_000];
        out.write_all(b"one\n\ntwo \xff words\n").await.unwrap();
        out.write_all(&long).await.unwrap();
        err.write_all(b"no end").await.unwrap();
        drop((out, err));
        log.finish().await.unwrap();
        let content = std::fs::read(path_in(dir.path())).unwrap();
        let (mut seen_out, mut seen_err) = (Vec::new(), Vec::new());
        for line in content
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let entry = Entry::parse(line).unwrap();
            assert!(entry.at.ends_with('Z'));
            match entry.is_error {
                true => seen_err.extend(entry.text),
                false => seen_out.extend(entry.text),
            }
        }
        let mut expected = b"one\n\ntwo \xff words\n".to_vec();
        expected.extend(long);
        assert!(seen_out == expected && seen_err == b"no end");
        assert_eq!(Entry::parse(b"no entry"), None);
    }
}
