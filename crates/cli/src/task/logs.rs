//! `cofferdam logs`.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result};
use cofferdam_owner::{Entry, Root};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    args::{Lines, LogsArgs},
    log_file::{self, older_path_in, path_in},
    moment::moment,
};

/// Between two looks at a log that grows.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn show(root: &Root, args: &LogsArgs) -> Result<()> {
    let entry = root.entry(&args.id)?;
    let none = || format!("{} has no log: only detached containers have one", args.id);
    let since = args
        .since
        .as_deref()
        .map(|text| moment(text, OffsetDateTime::now_utc()).with_context(|| format!("--since {text}")));
    let mut wanted = Wanted {
        skip: 0,
        since: since.transpose()?,
        timestamps: args.timestamps,
    };
    if let Lines::Last(lines) = args.tail {
        let mut all = Reading::open(&entry).with_context(none)?;
        wanted.skip = all.count(&wanted)?.saturating_sub(lines);
    }
    let mut reading = Reading::open(&entry).with_context(none)?;
    loop {
        // Looked at before the end of the file: what is written last is read then.
        let goes_on = args.follow && entry.is_alive();
        let next = reading.next_file()?;
        if !reading.rest(|line| wanted.print(line))? {
            // Whoever reads no further has seen enough.
            return Ok(());
        }
        if let Some(next) = next {
            reading.go_on_to(next);
            continue;
        }
        if !goes_on {
            return Ok(());
        }
        sleep(PAUSE);
    }
}

/// What of a log is shown, and how.
struct Wanted {
    /// Lines that are not, before those that are.
    skip: u64,
    since: Option<OffsetDateTime>,
    timestamps: bool,
}

impl Wanted {
    /// Whether it is of a time that is asked for.
    fn is_recent(&self, entry: &log_file::Entry<'_>) -> bool {
        self.since
            .is_none_or(|since| OffsetDateTime::parse(entry.at, &Rfc3339).is_ok_and(|at| at >= since))
    }

    /// Whether it could be printed, or need not be.
    fn print(&mut self, line: &[u8]) -> bool {
        let Some(entry) = log_file::Entry::parse(line).filter(|entry| self.is_recent(entry)) else {
            return true;
        };
        if self.skip > 0 {
            self.skip -= u64::from(entry.whole);
            return true;
        }
        let mut text = if self.timestamps {
            format!("{} ", entry.at).into_bytes()
        } else {
            Vec::new()
        };
        text.extend_from_slice(&entry.text);
        let written = match entry.is_error {
            true => std::io::stderr().write_all(&text),
            false => std::io::stdout().write_all(&text),
        };
        written.is_ok()
    }
}

/// A log that is read while it is written.
struct Reading {
    path: PathBuf,
    /// Which file it is.
    inode: u64,
    file: BufReader<File>,
    /// What there is of a line that is being written.
    line: Vec<u8>,
}

impl Reading {
    /// From its oldest entry on.
    fn open(entry: &Entry) -> io::Result<Self> {
        let path = path_in(entry.dir());
        let older = File::open(older_path_in(entry.dir()));
        let file = match older {
            Ok(older) => older,
            Err(_) => File::open(&path)?,
        };
        Ok(Self {
            path,
            inode: file.metadata()?.ino(),
            file: BufReader::new(file),
            line: Vec::new(),
        })
    }

    /// Hands every entry there is to `take`; whether that took them all.
    fn rest(&mut self, mut take: impl FnMut(&[u8]) -> bool) -> Result<bool> {
        while self
            .file
            .read_until(b'\n', &mut self.line)
            .context("reading the log")?
            > 0
        {
            // An entry that is just being written is read on later.
            if self.line.pop_if(|last| *last == b'\n').is_none() {
                break;
            }
            if !take(&self.line) {
                return Ok(false);
            }
            self.line.clear();
        }
        Ok(true)
    }

    /// The lines of what there is and is asked for: those of both files, and a last one without an end.
    fn count(&mut self, wanted: &Wanted) -> Result<u64> {
        let (mut lines, mut open) = (0, false);
        loop {
            let next = self.next_file()?;
            self.rest(|line| {
                if let Some(entry) = log_file::Entry::parse(line).filter(|entry| wanted.is_recent(entry)) {
                    lines += u64::from(entry.whole);
                    open = !entry.whole;
                }
                true
            })?;
            match next {
                Some(next) => self.go_on_to(next),
                None => return Ok(lines + u64::from(open)),
            }
        }
    }

    /// The file that is written now, where it is another one: nothing is added to ours any more. Whoever is two files
    /// behind has missed one.
    fn next_file(&self) -> Result<Option<(u64, File)>> {
        // It is just being replaced, or the container was removed.
        let Ok(current) = File::open(&self.path) else {
            return Ok(None);
        };
        let inode = current.metadata().context("reading the log")?.ino();
        Ok((inode != self.inode).then_some((inode, current)))
    }

    fn go_on_to(&mut self, (inode, file): (u64, File)) {
        self.inode = inode;
        self.file = BufReader::new(file);
        self.line.clear();
    }
}
