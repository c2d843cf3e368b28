//! Processes of the VM itself, outside any container (GCS bridge protocol §6, ExecuteProcess).

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Command, Stdio},
    sync::Arc,
};

use cofferdam_protocol::message::ProcessParameters;
use rustix::process::{ioctl_tiocsctty, setsid};

use super::{
    Process,
    reaper::Reaper,
    stdio::{self, ProcessEnds, Streams},
};
use crate::error::{AgentError, During, Result};

/// The argument that makes this program a session leader and then another program.
pub(crate) const SESSION: &str = "session";
/// Search path of a process that brings none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts a process in the VM's own namespaces. Without a console it gets the streams themselves.
pub(crate) fn start(
    reaper: &Reaper,
    parameters: &ProcessParameters,
    streams: Streams,
) -> Result<Arc<Process>> {
    let arguments = arguments(parameters)?;
    let process = Process::new(None, None).during(|| "making an event".into())?;
    let mut command = if parameters.emulate_console {
        let mut command = Command::new("/proc/self/exe");
        command.arg(SESSION).args(&arguments);
        command
    } else {
        let mut command = Command::new(&arguments[0]);
        command.args(&arguments[1..]);
        command
    };
    command
        .env_clear()
        .env("PATH", DEFAULT_PATH)
        .envs(&parameters.environment);
    command.current_dir(match parameters.working_directory.as_str() {
        "" => "/",
        directory => directory,
    });
    set_user(&mut command, &parameters.user)?;

    let ended = Arc::clone(&process);
    let spawn = |command: &mut Command| {
        reaper
            .spawn(command, move |code| ended.exited(code))
            .during(|| format!("starting {:?} in the VM", arguments[0]))
    };
    let pid = if parameters.emulate_console {
        let (agent, terminal) = stdio::console()?;
        let copies = terminal
            .try_clone()
            .and_then(|second| Ok((second, terminal.try_clone()?)));
        let (second, third) = copies.during(|| "copying a console".into())?;
        command.stdin(terminal).stdout(second).stderr(third);
        if let Some([height, width]) = parameters.console_size {
            process.set_console(Arc::new(agent.try_clone().during(|| "copying a console".into())?));
            stdio::resize(&process, height, width)?;
        }
        process.held(|| {
            let pid = spawn(&mut command)?;
            // The process's end must be its alone, or its end is never seen.
            drop(command);
            stdio::connect(&process, ProcessEnds::Console(agent), streams)?;
            Ok::<_, AgentError>(pid)
        })?
    } else {
        let or_null = |stream: Option<OwnedFd>| stream.map_or_else(Stdio::null, Stdio::from);
        command
            .stdin(or_null(streams.stdin))
            .stdout(or_null(streams.stdout))
            .stderr(or_null(streams.stderr));
        spawn(&mut command)?
    };
    process.started(pid);
    Ok(process)
}

/// Becomes the program that `arguments` name, as leader of a session whose terminal is standard input. Returns only
/// on failure.
pub(crate) fn become_session(arguments: &[String]) -> io::Error {
    let Some((program, rest)) = arguments.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no program is named");
    };
    if let Err(error) = setsid().and_then(|_| ioctl_tiocsctty(rustix::stdio::stdin())) {
        return error.into();
    }
    Command::new(program).args(rest).exec()
}

fn arguments(parameters: &ProcessParameters) -> Result<Vec<String>> {
    let arguments = match parameters.command_args.as_slice() {
        [] => split_words(&parameters.command_line)?,
        given => given.to_vec(),
    };
    if arguments.first().is_none_or(String::is_empty) {
        return Err(AgentError::Invalid("no command is given".into()));
    }
    if arguments.iter().any(|argument| argument.contains('\0')) {
        return Err(AgentError::Invalid("an argument holds a NUL".into()));
    }
    Ok(arguments)
}

fn set_user(command: &mut Command, user: &str) -> Result<()> {
    if user.is_empty() || user == "root" {
        return Ok(());
    }
    let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => {
            command.uid(uid).gid(gid);
            Ok(())
        }
        _ => Err(AgentError::Invalid(format!(
            "user {user:?} of a VM process: it must be UID or UID:GID"
        ))),
    }
}

/// Splits a command line as a POSIX shell would, without expanding anything.
fn split_words(line: &str) -> Result<Vec<String>> {
    let unfinished = || AgentError::Invalid(format!("command line {line:?} ends inside a quotation"));
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or_else(unfinished)? {
                        '\'' => break,
                        letter => word.push(letter),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or_else(unfinished)? {
                        '"' => break,
                        '\\' => match letters.next().ok_or_else(unfinished)? {
                            letter @ ('"' | '\\' | '$' | '`') => word.push(letter),
                            '\n' => {}
                            letter => word.extend(['\\', letter]),
                        },
                        letter => word.push(letter),
                    }
                }
            }
            '\\' => word
                .get_or_insert_default()
                .push(letters.next().ok_or_else(unfinished)?),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_split_as_in_a_shell() {
        let split = |line| split_words(line).unwrap();
        assert_eq!(split("  ls  -l\t/ "), ["ls", "-l", "/"]);
        assert_eq!(
            split(r#"sh -c 'echo "a  b"' "" x\ y"#),
            ["sh", "-c", r#"echo "a  b""#, "", "x y"]
        );
        assert_eq!(split(r#""a\"b\n" c'd'e"#), [r#"a"b\n"#, "cde"]);
        assert!(split("").is_empty());
        for line in ["'open", "\"open", "end\\"] {
            assert_eq!(split_words(line).unwrap_err().code(), 0x8007_0057, "{line}");
        }
    }

    #[test]
    fn command_args_win_and_nothing_is_refused() {
        let both = ProcessParameters {
            command_line: "a b".into(),
            command_args: vec!["c".into()],
            ..ProcessParameters::default()
        };
        assert_eq!(arguments(&both).unwrap(), ["c"]);
        assert!(arguments(&ProcessParameters::default()).is_err());
        let nul = ProcessParameters {
            command_args: vec!["a\0".into()],
            ..ProcessParameters::default()
        };
        assert!(arguments(&nul).is_err());
    }
}
