//! The streams of a container that outlives its command: its output goes into the log, and to everybody who is attached;
//! its input comes from those.
//!
//! Whoever attaches makes FIFOs and says where they are, as with a further process. Somebody who is attached and does not
//! read is waited for a moment, and then let go of: the container must not stand still for ever.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use cofferdam_container::Stdio;
use cofferdam_owner::control::Attachment;
use cofferdam_pod::Streams;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::unix::pipe,
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use crate::log_file::{LogFile, LogStream};

/// Bytes on their way.
const BUFFER_BYTES: usize = 64 << 10;
/// Chunks of input on their way.
const CHUNKS: usize = 4;
/// For somebody who is attached to read on.
const STALL_LIMIT: Duration = Duration::from_secs(10);

/// The owner's side of the streams.
pub(crate) struct Shared {
    stdout: mpsc::UnboundedSender<pipe::Sender>,
    stderr: mpsc::UnboundedSender<pipe::Sender>,
    /// Where input goes, as long as the container takes any.
    input: Option<mpsc::WeakSender<Vec<u8>>>,
}

/// What is under way until the container has ended.
pub(crate) struct Copying(Vec<JoinHandle<()>>);

impl Copying {
    /// Waits until everything that was written is in the log, and with those who are attached.
    pub(crate) async fn finish(self) {
        for copied in self.0 {
            if let Err(error) = copied.await {
                tracing::error!(%error, "copying output");
            }
        }
    }
}

/// The streams of a container that was not started yet, for whoever starts it.
#[derive(Clone, Default)]
pub(crate) struct Pending(Arc<Mutex<Option<Streams>>>);

impl Pending {
    fn inner(&self) -> MutexGuard<'_, Option<Streams>> {
        // It is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, streams: Streams) {
        *self.inner() = Some(streams);
    }

    pub(crate) fn take(&self) -> Option<Streams> {
        self.inner().take()
    }
}

/// What [`shared`] makes.
pub(crate) struct Made {
    pub(crate) shared: Shared,
    /// The container's ends.
    pub(crate) streams: Streams,
    pub(crate) copying: Copying,
}

/// Makes the streams of a container. With `interactive` it has an input, which ends only when it is told to.
pub(crate) fn shared(log: &LogFile, interactive: bool) -> Made {
    let (stdout, out, copied_out) = output(log.stream("stdout"));
    let (stderr, err, copied_err) = output(log.stream("stderr"));
    let mut streams = Streams {
        stdio: Stdio {
            stdin: None,
            stdout: Some(Box::new(out)),
            stderr: Some(Box::new(err)),
        },
        keeps_input: None,
    };
    let mut input = None;
    if interactive {
        let (sender, received) = mpsc::channel(CHUNKS);
        let (ours, containers) = duplex(BUFFER_BYTES);
        tokio::spawn(feed(received, ours));
        input = Some(sender.downgrade());
        streams.stdio.stdin = Some(Box::new(containers));
        streams.keeps_input = Some(Box::new(sender));
    }
    let shared = Shared {
        stdout,
        stderr,
        input,
    };
    Made {
        shared,
        streams,
        copying: Copying(vec![copied_out, copied_err]),
    }
}

type Output = (mpsc::UnboundedSender<pipe::Sender>, DuplexStream, JoinHandle<()>);

fn output(log: LogStream) -> Output {
    let (containers, ours) = duplex(BUFFER_BYTES);
    let (sender, attached) = mpsc::unbounded_channel();
    (sender, containers, tokio::spawn(copy(ours, log, attached)))
}

async fn copy(
    mut from: DuplexStream,
    mut log: LogStream,
    mut attaching: mpsc::UnboundedReceiver<pipe::Sender>,
) {
    let mut attached: Vec<pipe::Sender> = Vec::new();
    let mut chunk = vec![0; BUFFER_BYTES];
    let mut logged = Ok(());
    loop {
        let length = tokio::select! {
            // First whoever has come: what is read next is theirs too.
            biased;
            Some(client) = attaching.recv() => {
                attached.push(client);
                continue;
            }
            // It is in this process: it ends, and does not fail.
            read = from.read(&mut chunk) => read.unwrap_or(0),
        };
        // A log that cannot be written, on a full disk, does not hold the container up.
        if logged.is_ok() {
            logged = match length {
                0 => log.finish(),
                _ => log.write(&chunk[..length]),
            };
            if let Err(error) = &logged {
                tracing::error!(%error, "the log ends here");
            }
        }
        if length == 0 {
            return;
        }
        let mut still = Vec::new();
        for mut client in attached {
            if let Ok(Ok(())) = timeout(STALL_LIMIT, client.write_all(&chunk[..length])).await {
                still.push(client);
            }
        }
        attached = still;
    }
}

/// Passes chunks on until nobody can send any.
async fn feed(mut chunks: mpsc::Receiver<Vec<u8>>, mut to: DuplexStream) {
    while let Some(chunk) = chunks.recv().await {
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
}

impl Shared {
    /// Attaches somebody to these FIFOs; whether there is an input to be written to.
    ///
    /// # Errors
    /// A FIFO that cannot be opened; a container that has ended.
    pub(crate) fn attach(&self, attachment: &Attachment) -> Result<bool> {
        let open = |path: &Path| {
            pipe::OpenOptions::new()
                .open_sender(path)
                .with_context(|| format!("opening {}", path.display()))
        };
        let stdout = open(&attachment.stdout)?;
        let stderr = attachment.stderr.as_deref().map(open).transpose()?;
        let input = self.input.as_ref().and_then(mpsc::WeakSender::upgrade);
        let takes_input = input.is_some();
        if let (Some(path), Some(to)) = (&attachment.stdin, input) {
            let from = pipe::OpenOptions::new()
                .open_receiver(path)
                .with_context(|| format!("opening {}", path.display()))?;
            tokio::spawn(input_of(from, to));
        }
        let ended = "it has ended";
        self.stdout.send(stdout).context(ended)?;
        if let Some(stderr) = stderr {
            self.stderr.send(stderr).context(ended)?;
        }
        Ok(takes_input)
    }
}

async fn input_of(mut from: pipe::Receiver, to: mpsc::Sender<Vec<u8>>) {
    let mut chunk = vec![0; BUFFER_BYTES];
    loop {
        tokio::select! {
            read = from.read(&mut chunk) => match read {
                Ok(length) if length > 0 => {
                    if to.send(chunk[..length].to_vec()).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            () = to.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    struct Fifos(tempfile::TempDir);

    impl Fifos {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["in", "out", "err"] {
                mkfifoat(CWD, dir.path().join(name), Mode::RUSR | Mode::WUSR).unwrap();
            }
            Self(dir)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn attachment(&self) -> Attachment {
            Attachment {
                stdin: Some(self.path("in")),
                stdout: self.path("out"),
                stderr: Some(self.path("err")),
            }
        }

        fn reader(&self, name: &str) -> pipe::Receiver {
            pipe::OpenOptions::new().open_receiver(self.path(name)).unwrap()
        }
    }

    /// The streams of a container whose log is there.
    fn made(dir: &tempfile::TempDir, interactive: bool) -> Made {
        let log = LogFile::open(dir.path(), 1 << 20).unwrap();
        shared(&log, interactive)
    }

    async fn rest(mut reader: pipe::Receiver) -> Vec<u8> {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn everybody_who_is_attached_gets_what_comes_and_the_log_gets_everything() {
        let dir = tempfile::tempdir().unwrap();
        let Made {
            shared,
            streams,
            copying,
        } = made(&dir, false);
        let mut stdio = streams.stdio;
        let mut out = stdio.stdout.take().unwrap();
        out.write_all(b"early\n").await.unwrap();
        // Nobody was attached: once it is logged it is over for those who come.
        while std::fs::read(dir.path().join("log")).unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let clients = [Fifos::new(), Fifos::new()];
        let mut readers = Vec::new();
        for client in &clients {
            readers.push((client.reader("out"), client.reader("err")));
            assert!(!shared.attach(&client.attachment()).unwrap(), "there is no input");
        }
        let gone = Fifos::new();
        let reader = (gone.reader("out"), gone.reader("err"));
        shared.attach(&gone.attachment()).unwrap();
        drop(reader);
        out.write_all(b"later\n").await.unwrap();
        stdio.stderr.take().unwrap().write_all(b"aside").await.unwrap();
        drop((out, stdio));
        for (out, err) in readers {
            assert_eq!(rest(out).await, b"later\n");
            assert_eq!(rest(err).await, b"aside");
        }
        copying.finish().await;
        let content = std::fs::read_to_string(dir.path().join("log")).unwrap();
        for text in ["stdout F early\n", "stdout F later\n", "stderr P aside\n"] {
            assert!(content.contains(text), "{content}");
        }
        let late = Fifos::new();
        let _readers = (late.reader("out"), late.reader("err"));
        let refused = shared.attach(&late.attachment()).unwrap_err();
        assert_eq!(refused.to_string(), "it has ended");
    }

    #[tokio::test]
    async fn input_outlives_a_client_and_ends_when_it_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let Made { shared, streams, .. } = made(&dir, true);
        let mut stdin = streams.stdio.stdin.unwrap();
        for (word, last) in [("first", false), ("again", true)] {
            let client = Fifos::new();
            let _readers = (client.reader("out"), client.reader("err"));
            let mut sender = pipe::OpenOptions::new()
                .read_write(true)
                .open_sender(client.path("in"))
                .unwrap();
            assert!(shared.attach(&client.attachment()).unwrap());
            sender.write_all(word.as_bytes()).await.unwrap();
            drop(sender);
            let mut read = [0; 5];
            stdin.read_exact(&mut read).await.unwrap();
            assert_eq!(read, word.as_bytes(), "{last}");
        }
        drop(streams.keeps_input);
        assert_eq!(stdin.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_who_does_not_read_is_let_go_of() {
        let dir = tempfile::tempdir().unwrap();
        let Made {
            shared,
            streams,
            copying,
        } = made(&dir, false);
        let client = Fifos::new();
        let (out, _err) = (client.reader("out"), client.reader("err"));
        shared.attach(&client.attachment()).unwrap();
        let mut stdout = streams.stdio.stdout.unwrap();
        stdout.write_all(&vec![b'x'; 300_000]).await.unwrap();
        drop((stdout, streams.stdio.stderr));
        copying.finish().await;
        let got = rest(out).await.len();
        assert!((1..300_000).contains(&got), "{got}");
    }
}
