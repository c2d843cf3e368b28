//! `cofferdam logs`.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result};
use cofferdam_owner::Root;

use crate::{
    args::LogsArgs,
    log_file::{Entry, path_in},
};

/// Between two looks at a log that grows.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn show(root: &Root, args: &LogsArgs) -> Result<()> {
    let entry = root.entry(&args.id)?;
    let path = path_in(entry.dir());
    let file = File::open(&path)
        .with_context(|| format!("{} has no log: only detached containers have one", args.id))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        // Looked at before the end of the file: what is written last is read then.
        let goes_on = args.follow && entry.is_alive();
        while reader.read_until(b'\n', &mut line).context("reading the log")? > 0 {
            // An entry that is just being written is read on later.
            if line.pop_if(|last| *last == b'\n').is_none() {
                break;
            }
            if !print(&line, args.timestamps) {
                // Whoever reads no further has seen enough.
                return Ok(());
            }
            line.clear();
        }
        if !goes_on {
            return Ok(());
        }
        sleep(PAUSE);
    }
}

/// Whether it could be printed.
fn print(line: &[u8], timestamps: bool) -> bool {
    let Some(entry) = Entry::parse(line) else {
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
