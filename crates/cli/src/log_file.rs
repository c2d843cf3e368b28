//! A container's output in a file: a line each, as Kubernetes' container runtimes write it.
//!
//! `2026-01-02T03:04:05.678901234Z stdout F text`; `P` instead of `F` where the line goes on in the next entry.
//!
//! It is in the owner's directory, which may be in memory, so its size is limited: what becomes the older half replaces
//! the half before it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The file's name in its owner's directory.
const NAME: &str = "log";
/// The longest text of one entry, in bytes.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// Where an owner's log is.
pub(crate) fn path_in(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Where the older half of a log is that has become too long.
pub(crate) fn older_path_in(dir: &Path) -> PathBuf {
    dir.join(format!("{NAME}.1"))
}

/// A log that is being written.
pub(crate) struct LogFile(Arc<Mutex<Halves>>);

/// The file that is written, and the rule when it becomes the older one.
struct Halves {
    dir: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
}

impl LogFile {
    /// Makes it. It never takes more than `max_bytes`: of what is written the last half, at least, is kept.
    pub(crate) fn open(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        let halves = Halves {
            file: new_file(dir)?,
            dir: dir.to_owned(),
            bytes: 0,
            max_bytes,
        };
        Ok(Self(Arc::new(Mutex::new(halves))))
    }

    /// What is written there comes into the log as `name`'s.
    pub(crate) fn stream(&self, name: &'static str) -> LogStream {
        LogStream {
            name,
            file: self.0.clone(),
            line: Vec::new(),
        }
    }
}

fn new_file(dir: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(path_in(dir))
}

impl Halves {
    /// One write an entry: those of two streams do not mix.
    fn append(&mut self, entry: &[u8]) -> io::Result<()> {
        let length = entry.len() as u64;
        if self.bytes > 0 && self.bytes + length > self.max_bytes / 2 {
            std::fs::rename(path_in(&self.dir), older_path_in(&self.dir))?;
            self.file = new_file(&self.dir)?;
            self.bytes = 0;
        }
        self.bytes += length;
        self.file.write_all(entry)
    }
}

/// One stream of a log.
pub(crate) struct LogStream {
    name: &'static str,
    file: Arc<Mutex<Halves>>,
    /// The line that has not ended yet.
    line: Vec<u8>,
}

impl LogStream {
    /// Adds to the log what was written: each line once it is whole, or too long.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = MAX_TEXT_BYTES - self.line.len();
            let within = &bytes[..room.min(bytes.len())];
            let (taken, whole) = match within.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end, true),
                None => (within.len(), false),
            };
            self.line.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken + usize::from(whole)..];
            if whole || self.line.len() == MAX_TEXT_BYTES {
                self.entry(whole)?;
            }
        }
        Ok(())
    }

    /// Adds what there is of the last line.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        match self.line.is_empty() {
            true => Ok(()),
            false => self.entry(false),
        }
    }

    fn entry(&mut self, whole: bool) -> io::Result<()> {
        let at = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let mut entry = format!("{at} {} {} ", self.name, if whole { 'F' } else { 'P' }).into_bytes();
        entry.append(&mut self.line);
        entry.push(b'\n');
        let mut halves = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        halves.append(&entry)
    }
}

/// One entry of a log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) at: &'a str,
    pub(crate) is_error: bool,
    /// Whether the line ends here.
    pub(crate) whole: bool,
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
        Some(Self {
            at,
            is_error,
            whole,
            text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(content: &[u8]) -> Vec<Entry<'_>> {
        let lines = content.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| Entry::parse(line).unwrap())
            .collect()
    }

    #[test]
    fn what_is_written_comes_back_line_by_line_whatever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile::open(dir.path(), 1 << 20).unwrap();
        let (mut out, mut err) = (log.stream("stdout"), log.stream("stderr"));
        let mut expected = b"one\n\ntwo \xff words\n".to_vec();
        expected.extend(vec![b'x'; MAX_TEXT_BYTES]);
        expected.push(b'\n');
        expected.extend(vec![b'y'; 40_000]);
        for piece in expected.chunks(777) {
            out.write(piece).unwrap();
        }
        err.write(b"no end").unwrap();
        out.finish().unwrap();
        err.finish().unwrap();
        let content = std::fs::read(path_in(dir.path())).unwrap();
        let (mut seen_out, mut seen_err) = (Vec::new(), Vec::new());
        for entry in entries(&content) {
            assert!(entry.at.ends_with('Z') && entry.text.len() <= MAX_TEXT_BYTES + 1);
            match entry.is_error {
                true => seen_err.extend(entry.text),
                false => seen_out.extend(entry.text),
            }
        }
        assert!(seen_out == expected && seen_err == b"no end");
        assert_eq!(Entry::parse(b"no entry"), None);
    }

    #[test]
    fn a_log_stays_within_its_size_and_keeps_what_came_last() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile::open(dir.path(), 10_000).unwrap();
        let mut out = log.stream("stdout");
        for number in 0..2_000 {
            out.write(format!("{number}\n").as_bytes()).unwrap();
        }
        let older = std::fs::read(older_path_in(dir.path())).unwrap();
        let newer = std::fs::read(path_in(dir.path())).unwrap();
        assert!(older.len() <= 5_000 && newer.len() <= 5_000);
        let kept: Vec<u32> = [older, newer]
            .iter()
            .flat_map(|half| entries(half))
            .map(|entry| String::from_utf8(entry.text).unwrap().trim_end().parse().unwrap())
            .collect();
        assert!(kept.len() > 100 && kept.last() == Some(&1_999));
        assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    }
}
