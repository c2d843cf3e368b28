//! Runs programs: their output goes to a log file and is shown only when they fail.

use std::{
    collections::VecDeque,
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{processes, workspace};

/// How many of its last lines a failed program is shown with.
const LINES_SHOWN: usize = 40;

/// A program to run, with the name of its log.
pub(crate) struct Tool {
    command: Command,
    log: String,
    hint: Option<String>,
    silence_limit: Option<Duration>,
}

impl Tool {
    /// A program by name or path. The log is named after it unless [`Tool::log`] says otherwise.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let log = Path::new(program)
            .file_name()
            .unwrap_or(program)
            .to_string_lossy()
            .into_owned();
        let mut command = Command::new(program);
        // Output is parsed: it must not be translated.
        command
            .stdin(Stdio::null())
            .env("PATH", search_path())
            .env("LC_ALL", "C.UTF-8");
        Tool {
            command,
            log,
            hint: None,
            silence_limit: None,
        }
    }

    /// The cargo that runs xtask.
    pub(crate) fn cargo() -> Self {
        let mut tool =
            Tool::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).in_dir(workspace::root());
        // Set for xtask by `cargo run`; a nested cargo must find its own.
        for variable in [
            "CARGO_MANIFEST_DIR",
            "CARGO_MANIFEST_PATH",
            "CARGO_PKG_NAME",
            "CARGO_PKG_VERSION",
        ] {
            tool.command.env_remove(variable);
        }
        tool
    }

    /// A program that needs root: as it is when we are root, through sudo otherwise.
    pub(crate) fn as_root(program: &str) -> Result<Self> {
        if rustix::process::geteuid().is_root() {
            return Ok(Tool::new(program).env("DEBIAN_FRONTEND", "noninteractive"));
        }
        become_root_able(program)?;
        // sudo starts with an environment of its own.
        let environment = ["env", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"];
        Ok(Tool::new("sudo").args(environment).arg(program).log(program))
    }

    /// Adds one argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The directory to run in.
    pub(crate) fn in_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Names the log file (without directory and suffix).
    pub(crate) fn log(mut self, name: &str) -> Self {
        self.log = name.to_owned();
        self
    }

    /// What to do next when the program fails.
    pub(crate) fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }

    /// Kills what the program has started, not the program itself, when there is no line of output for so long: cargo then
    /// reports the test that hung, and goes on with the next.
    pub(crate) fn silence_limit(mut self, limit: Duration) -> Self {
        self.silence_limit = Some(limit);
        self
    }

    /// Runs to a successful end.
    pub(crate) fn run(self) -> Result<()> {
        self.run_lines(|_| {})
    }

    /// Runs to a successful end, showing each line of output (and error output) to `seen`.
    pub(crate) fn run_lines(self, seen: impl FnMut(&str)) -> Result<()> {
        let (command_line, log_path, hint) = (self.command_line(), self.log_path(), self.hint.clone());
        let (success, status, tail) = self.observe(seen)?;
        if success {
            return Ok(());
        }
        let hint = hint
            .map(|hint| format!("\nwhat to do: {hint}"))
            .unwrap_or_default();
        Err(anyhow!(
            "`{command_line}` failed ({status}); its last lines:\n{}\nthe whole log: {}{hint}",
            tail.iter()
                .map(|line| format!("  | {line}"))
                .collect::<Vec<_>>()
                .join("\n"),
            workspace::shown(&log_path),
        ))
    }

    /// Runs to the end and returns whether it succeeded, its status in words, and its last lines.
    pub(crate) fn observe(mut self, mut seen: impl FnMut(&str)) -> Result<(bool, String, Vec<String>)> {
        let command_line = self.command_line();
        let log_path = self.log_path();
        workspace::create_dir(&workspace::logs_dir())?;
        let mut log =
            File::create(&log_path).with_context(|| format!("could not write {}", log_path.display()))?;
        writeln!(log, "$ {command_line}")?;
        let (reader, writer) = std::io::pipe().context("could not make a pipe")?;
        self.command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = self
            .command
            .spawn()
            .map_err(|error| missing(&command_line, error))?;
        // The command holds the pipe's writing ends: without this, the pipe would never end.
        drop(self.command);
        let mut tail = VecDeque::with_capacity(LINES_SHOWN);
        let lines = lines_of(reader);
        let limit = self.silence_limit.unwrap_or(Duration::MAX);
        loop {
            let raw = match lines.recv_timeout(limit) {
                Ok(raw) => raw,
                Err(RecvTimeoutError::Timeout) => kill_below(child.id(), limit)?.into_bytes(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            log.write_all(&raw)?;
            let line = String::from_utf8_lossy(&raw).trim_end().to_owned();
            seen(&line);
            if tail.len() == LINES_SHOWN {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        let status = child
            .wait()
            .with_context(|| format!("lost track of `{command_line}`"))?;
        Ok((status.success(), status.to_string(), tail.into()))
    }

    /// Runs to a successful end and returns its standard output.
    pub(crate) fn read(mut self) -> Result<String> {
        let command_line = self.command_line();
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| missing(&command_line, error))?;
        // Error output is drained by a thread of its own: a full pipe would stop the program.
        let mut stderr = child
            .stderr
            .take()
            .context("invariant: standard error was piped")?;
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).map(|_| text)
        });
        let output = child.wait_with_output()?;
        let errors = errors.join().ok().and_then(Result::ok).unwrap_or_default();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&errors);
            bail!(
                "`{command_line}` failed ({}): {}",
                output.status,
                errors.trim_end()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The program with the terminal for itself.
    pub(crate) fn interactive(self) -> Command {
        let mut command = self.command;
        command.stdin(Stdio::inherit());
        command
    }

    fn log_path(&self) -> PathBuf {
        workspace::logs_dir().join(format!("{}.log", self.log))
    }

    fn command_line(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words
            .map(|word| word.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// The lines of a pipe, each with its end, as they come.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut raw = Vec::new();
        while matches!(reader.read_until(b'\n', &mut raw), Ok(1..)) {
            if sender.send(std::mem::take(&mut raw)).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Kills every process below one that was started here, and says so in a line.
fn kill_below(pid: u32, silent_for: Duration) -> Result<String> {
    let victims = processes::below(pid)?;
    victims.iter().for_each(processes::kill);
    let names: Vec<_> = victims
        .iter()
        .map(|victim| format!("{} {}", victim.pid, victim.name))
        .collect();
    let silence = crate::progress::seconds(silent_for);
    Ok(format!(
        "error: no output for {silence}, killed: {}\n",
        names.join(", ")
    ))
}

/// Makes sure that sudo will run a program without asking: a question in the middle of a step would be painted over.
fn become_root_able(program: &str) -> Result<()> {
    if find("sudo").is_none() {
        bail!("`{program}` needs root: run this command as root, or install sudo");
    }
    let asks = !Command::new("sudo")
        .args(["-n", "true"])
        .stderr(Stdio::null())
        .status()?
        .success();
    if asks {
        crate::progress::note(format!("`{program}` needs root; sudo may ask for your password"));
        let allowed = Command::new("sudo")
            .arg("-v")
            .status()
            .context("could not start sudo")?;
        if !allowed.success() {
            bail!("`{program}` needs root, and sudo refused: run this command as root");
        }
    }
    Ok(())
}

/// Where a program is, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path())
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// `PATH` with the directories of administration, which an ordinary user's may lack.
fn search_path() -> OsString {
    let mut dirs: Vec<PathBuf> = env::var_os("PATH")
        .map(|p| env::split_paths(&p).collect())
        .unwrap_or_default();
    for extra in ["/usr/local/sbin", "/usr/sbin", "/sbin"] {
        if !dirs.iter().any(|dir| dir == Path::new(extra)) {
            dirs.push(extra.into());
        }
    }
    env::join_paths(dirs).unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into())
}

fn missing(command_line: &str, error: std::io::Error) -> anyhow::Error {
    let not_found = error.kind() == std::io::ErrorKind::NotFound;
    let context = if not_found {
        format!("could not start `{command_line}`; `cargo xtask setup` installs what is missing")
    } else {
        format!("could not start `{command_line}`")
    };
    anyhow::Error::new(error).context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_last_lines_the_log_and_what_to_do() {
        let error = Tool::new("sh")
            .args(["-c", "echo one; echo two >&2; exit 3"])
            .log("test-tool-failure")
            .hint("try again")
            .run()
            .unwrap_err()
            .to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("| one\n  | two"), "{error}");
        assert!(
            error.contains("test-tool-failure.log") && error.contains("try again"),
            "{error}"
        );
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_its_parent_goes_on() {
        let mut lines = Vec::new();
        let (success, _, _) = Tool::new("sh")
            .args(["-c", "echo first; sleep 600; echo status $?"])
            .log("test-tool-hang")
            .silence_limit(Duration::from_millis(300))
            .observe(|line| lines.push(line.to_owned()))
            .unwrap();
        assert!(success);
        assert!(
            lines
                .iter()
                .any(|line| line.contains("killed: ") && line.contains("sleep")),
            "{lines:?}"
        );
        assert!(lines.contains(&"status 137".to_owned()), "{lines:?}");
    }

    #[test]
    fn a_missing_program_names_the_command_that_installs_it() {
        let error = Tool::new("no-such-program-anywhere")
            .run()
            .unwrap_err()
            .to_string();
        assert!(error.contains("cargo xtask setup"), "{error}");
    }

    #[test]
    fn reading_returns_only_standard_output() {
        let text = Tool::new("sh")
            .args(["-c", "echo out; echo err >&2"])
            .read()
            .unwrap();
        assert_eq!(text, "out\n");
    }

    #[test]
    fn much_error_output_does_not_stop_a_program_that_is_read() {
        let text = Tool::new("sh")
            .args(["-c", "yes | head -c 300000 >&2; echo end"])
            .read()
            .unwrap();
        assert_eq!(text, "end\n");
    }
}
