//! Asking a living owner: one line of JSON each way, over its control socket.
//!
//! The socket is its user's alone, and the owner looks at who calls. Lines are bounded, and a caller that says nothing
//! or reads nothing is not waited for.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use rustix::net::sockopt::socket_peercred;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::timeout,
};

use crate::root::SOCKET;

/// The longest line either side sends, in bytes.
const MAX_LINE_BYTES: u64 = 4 << 20;
/// For a caller to say what it wants, and to take the answer.
const CALLER_LIMIT: Duration = Duration::from_secs(10);
/// For the owner to answer. Every step it performs has a limit of its own.
const ANSWER_LIMIT: Duration = Duration::from_secs(600);
/// Callers served at once; further ones wait.
const MAX_CALLERS: usize = 32;

/// What an owner can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Question {
    /// Do ledger, host devices and guest mounts agree?
    Check {
        /// Free what nobody holds.
        repair: bool,
    },
    /// One more mount for the running container.
    MountAdd {
        /// The entry, as it would stand in the spec's `mounts`; its source is absolute.
        mount: Value,
    },
    /// All such mounts.
    MountList,
    /// The containers, and who holds which device.
    Inspect,
    /// Connect FIFOs to the container's streams.
    Attach(Attachment),
    /// Take such a mount away.
    MountRemove {
        /// Where it is in the container.
        destination: String,
    },
}

/// FIFOs of the caller's, which the owner opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// What is written to it is the container's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<PathBuf>,
    /// The container's output from now on; the caller has it open already.
    pub stdout: PathBuf,
    /// Its error output, likewise; where it has a terminal there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<PathBuf>,
}

/// The answer to [`Question::Attach`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// Whether the container takes input.
    pub input: bool,
}

/// The answer's line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ok(Value),
    Error(String),
}

/// Who answers.
#[async_trait]
pub trait Answers: Send + Sync + 'static {
    /// Answers a question; an error is told to the caller in these words.
    async fn answer(&self, question: Question) -> Result<Value, String>;
}

/// Why an owner could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens, or the connection broke.
    #[error("asking the owner: {0}")]
    Io(#[from] io::Error),
    /// The answer is none.
    #[error("the owner's answer: {0}")]
    Malformed(#[source] serde_json::Error),
    /// The owner refused, or failed.
    #[error("{0}")]
    Refused(String),
}

/// Opens the control socket in an owner's directory.
///
/// # Errors
/// The system's.
pub fn listen(dir: &Path) -> io::Result<UnixListener> {
    let listener = bind(dir, SOCKET)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Binds a socket of this name in an owner's directory.
///
/// # Errors
/// The system's.
pub fn bind(dir: &Path, name: &str) -> io::Result<StdListener> {
    through_descriptor(dir, name, |path| StdListener::bind(path))
}

/// Connects to the socket of this name in an owner's directory.
///
/// # Errors
/// The system's.
pub fn connect(dir: &Path, name: &str) -> io::Result<StdStream> {
    through_descriptor(dir, name, |path| StdStream::connect(path))
}

/// A socket's path has at most 107 bytes (unix(7)); through its directory's descriptor it is short whatever the
/// directory is called.
fn through_descriptor<T>(dir: &Path, name: &str, open: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let dir = std::fs::File::open(dir)?;
    open(
        &Path::new("/proc/self/fd")
            .join(dir.as_raw_fd().to_string())
            .join(name),
    )
}

/// Answers callers until it is dropped.
pub async fn serve(listener: UnixListener, owner: Arc<dyn Answers>) {
    let mut callers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if callers.len() < MAX_CALLERS => match accepted {
                Ok((stream, _)) => {
                    let owner = Arc::clone(&owner);
                    callers.spawn(async move {
                        if let Err(error) = one(stream, owner.as_ref()).await {
                            tracing::debug!(%error, "a caller of the control socket");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a caller");
                    // Descriptors ran out: they come back as callers leave.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = callers.join_next() => {}
        }
    }
}

/// Whether whoever has connected may ask: root, and the owner's own user.
pub fn is_welcome(stream: &UnixStream) -> bool {
    let caller = socket_peercred(stream).map(|caller| caller.uid);
    caller.is_ok_and(|caller| caller.is_root() || caller == rustix::process::geteuid())
}

async fn one(stream: UnixStream, owner: &dyn Answers) -> io::Result<()> {
    if !is_welcome(&stream) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (input, mut output) = stream.into_split();
    let mut input = tokio::io::BufReader::new(input).take(MAX_LINE_BYTES);
    let mut line = Vec::new();
    timeout(CALLER_LIMIT, input.read_until(b'\n', &mut line)).await??;
    let answered = match serde_json::from_slice::<Question>(&line) {
        Ok(question) => owner.answer(question).await,
        Err(error) => Err(format!("no question: {error}")),
    };
    let answer = answered.map_or_else(Answer::Error, Answer::Ok);
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(CALLER_LIMIT, output.write_all(&line)).await?
}

/// Asks the owner whose directory this is, and waits for the answer.
///
/// # Errors
/// [`ControlError`].
pub fn ask<T: DeserializeOwned>(dir: &Path, question: &Question) -> Result<T, ControlError> {
    let mut stream = connect(dir, SOCKET)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(CALLER_LIMIT))?;
    let mut line = serde_json::to_vec(question).map_err(ControlError::Malformed)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_LINE_BYTES)).read_until(b'\n', &mut answer)?;
    if answer.is_empty() {
        let gone = io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without an answer");
        return Err(gone.into());
    }
    match serde_json::from_slice(&answer).map_err(ControlError::Malformed)? {
        Answer::Ok(value) => serde_json::from_value(value).map_err(ControlError::Malformed),
        Answer::Error(message) => Err(ControlError::Refused(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    #[async_trait]
    impl Answers for Echo {
        async fn answer(&self, question: Question) -> Result<Value, String> {
            match question {
                Question::MountRemove { .. } => Err("not today".into()),
                other => serde_json::to_value(other).map_err(|error| error.to_string()),
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn questions_are_answered_whatever_the_directory_is_called_and_rubbish_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("x".repeat(200));
        std::fs::create_dir(&dir).unwrap();
        let server = tokio::spawn(serve(listen(&dir).unwrap(), Arc::new(Echo)));
        let asked = dir.clone();
        let caller = tokio::task::spawn_blocking(move || {
            let question = Question::Check { repair: true };
            let answer: Question = ask(&asked, &question).unwrap();
            assert_eq!(answer, question);
            let destination = "/d".to_owned();
            let refused = ask::<Value>(&asked, &Question::MountRemove { destination }).unwrap_err();
            assert_eq!(refused.to_string(), "not today");
            let mut stream = connect(&asked, SOCKET).unwrap();
            stream.write_all(b"{\"op\": \"explode\"}\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert!(text.contains("no question: unknown variant"), "{text}");
        });
        caller.await.unwrap();
        server.abort();
        assert!(matches!(
            tokio::task::spawn_blocking(move || ask::<Value>(&dir, &Question::Check { repair: false }))
                .await
                .unwrap(),
            Err(ControlError::Io(_))
        ));
    }
}
