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

use crate::{
    args::LogsArgs,
    log_file::{self, older_path_in, path_in},
};

/// Between two looks at a log that grows.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn show(root: &Root, args: &LogsArgs) -> Result<()> {
    let entry = root.entry(&args.id)?;
    let mut reading = Reading::open(&entry)
        .with_context(|| format!("{} has no log: only detached containers have one", args.id))?;
    loop {
        // Looked at before the end of the file: what is written last is read then.
        let goes_on = args.follow && entry.is_alive();
        let next = reading.next_file()?;
        if !reading.print_rest(args.timestamps)? {
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

    /// Prints what there is; whether it could be printed.
    fn print_rest(&mut self, timestamps: bool) -> Result<bool> {
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
            if !print(&self.line, timestamps) {
                return Ok(false);
            }
            self.line.clear();
        }
        Ok(true)
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

/// Whether it could be printed.
fn print(line: &[u8], timestamps: bool) -> bool {
    let Some(entry) = log_file::Entry::parse(line) else {
        return true;
    };
    let mut text = if timestamps {
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
