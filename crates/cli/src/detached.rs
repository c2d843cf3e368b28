//! `cofferdam run --detach` and `cofferdam create`: the same command once more, as a process of its own.
//!
//! It tells on its standard output that the container is there, and lets go of it then; until then its errors are ours.

use std::{
    env,
    fs::File,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::exit::Exit;

/// Says to the command that it is the process of its own.
const MARK: &str = "COFFERDAM_DETACHED";
/// What it says when the container is there, before its name.
const THERE: &str = "there ";
/// What it has to say afterwards, in its directory.
const LOG: &str = "owner.log";

/// Whether this process is the one that was detached. It leaves its caller's session.
pub(crate) fn is_detached() -> bool {
    let detached = env::var_os(MARK).is_some();
    if detached {
        // It fails for a session's leader, which it is then.
        let _ = rustix::process::setsid();
    }
    detached
}

/// Starts the process, waits until the container is there, and prints its name.
pub(crate) fn start() -> Exit {
    match started() {
        Ok(exit) => exit,
        Err(error) => Exit::failed(format!("{error:#}")),
    }
}

fn started() -> Result<Exit> {
    let program = env::current_exe().context("looking for this program")?;
    let mut child = Command::new(program)
        .args(env::args_os().skip(1))
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the process that owns the container")?;
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take() {
        output
            .read_to_string(&mut said)
            .context("waiting for the container")?;
    }
    if let Some(id) = said.strip_prefix(THERE) {
        println!("{}", id.trim_end());
        return Ok(Exit::success());
    }
    // It has said why.
    let ended = child.wait().context("waiting for the container")?;
    let status = ended.code().and_then(|code| u8::try_from(code).ok());
    Ok(status.map_or_else(
        || Exit::failed("the process that owns the container was killed"),
        Exit::container,
    ))
}

/// Tells that the container is there, and lets go of the caller's streams.
pub(crate) fn announce(id: &str, dir: &Path) -> Result<()> {
    println!("{THERE}{id}");
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("opening /dev/null")?;
    rustix::stdio::dup2_stdout(&null).context("letting go of the standard output")?;
    let path = dir.join(LOG);
    let log = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    rustix::stdio::dup2_stderr(&log).context("letting go of the standard error")
}
