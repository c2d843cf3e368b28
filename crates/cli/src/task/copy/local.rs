//! This host's end of a copy: threads that may block, on files and on the pipe to the owner.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufReader, BufWriter, IsTerminal as _, Read, Write},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use cofferdam_archive::{Input, InputOptions};
use cofferdam_copy::{Policy, Root, Target, pack, unpack};

use super::sides::{Copy, Local, Way};
use crate::progress::Bar;

/// Bytes moved at a time.
const BUFFER_BYTES: usize = 128 << 10;
/// What is copied faster needs no progress.
const SILENCE: Duration = Duration::from_secs(1);

/// Moves all of it through the pipe.
pub(super) fn run(copy: &Copy, pipe: File) -> Result<()> {
    let mut meter = Meter::new(pipe, copy.quiet);
    match &copy.way {
        Way::In {
            from: Local::Stream, ..
        } => {
            // Compressed ones too.
            let mut archive =
                Input::new(io::stdin(), InputOptions::default()).context("reading the archive")?;
            io::copy(&mut archive, &mut meter).context("sending the archive")?;
            archive.finish().context("reading the archive")?;
        }
        Way::In {
            from: Local::Path(path),
            ..
        } => {
            let output = BufWriter::with_capacity(BUFFER_BYTES, &mut meter);
            pack(&Root::own(), path, copy.follow, output, &mut note)?;
        }
        Way::Out {
            to: Local::Stream, ..
        } => {
            let mut output = io::stdout().lock();
            io::copy(&mut meter, &mut output)
                .and_then(|_| output.flush())
                .context("writing the archive")?;
        }
        Way::Out {
            path,
            to: Local::Path(to),
        } => {
            let policy = match copy.keep {
                true => Policy::keep(),
                false => Policy::caller(),
            };
            let input = BufReader::with_capacity(BUFFER_BYTES, &mut meter);
            let target = Target::new(to, path.as_bytes());
            unpack(input, &Root::own(), &target, &policy, &mut note)?;
        }
    }
    Ok(())
}

/// Refuses what nobody can want, before anything is asked of anybody.
pub(super) fn check(copy: &Copy) -> Result<()> {
    let (input, output) = (io::stdin().is_terminal(), io::stdout().is_terminal());
    match &copy.way {
        Way::In {
            from: Local::Stream, ..
        } if input => bail!("an archive is not read from a terminal"),
        Way::Out {
            to: Local::Stream, ..
        } if output => bail!("an archive is not written to a terminal"),
        Way::In {
            from: Local::Path(path),
            ..
        } => {
            // What goes wrong later is told then.
            let path = Path::new(OsStr::from_bytes(path));
            let found = std::fs::symlink_metadata(path);
            found
                .with_context(|| format!("looking at {}", path.display()))
                .map(drop)
        }
        _ => Ok(()),
    }
}

/// What was left out.
fn note(text: String) {
    eprintln!("cofferdam: {text}");
}

/// A pipe whose bytes are counted; a bar shows them once it takes long.
struct Meter {
    pipe: File,
    quiet: bool,
    since: Instant,
    bytes: u64,
    bar: Option<Bar>,
}

impl Meter {
    fn new(pipe: File, quiet: bool) -> Self {
        Self {
            pipe,
            quiet,
            since: Instant::now(),
            bytes: 0,
            bar: None,
        }
    }

    fn count(&mut self, length: usize) {
        let length = length as u64;
        self.bytes += length;
        match &self.bar {
            Some(bar) => bar.advance(length),
            None if !self.quiet && self.since.elapsed() > SILENCE => {
                let bar = Bar::bytes(None, false, "copied");
                bar.advance(self.bytes);
                self.bar = Some(bar);
            }
            None => {}
        }
    }
}

impl Read for Meter {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.pipe.read(bytes)?;
        self.count(length);
        Ok(length)
    }
}

impl Write for Meter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.pipe.write(bytes)?;
        self.count(length);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
