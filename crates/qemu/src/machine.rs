//! One running QEMU with everything attached to it: QMP, console, messages, and the watch over its end.

use std::{
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    os::unix::net::UnixStream as StdUnixStream,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cofferdam_backend::VmExit;
use tokio::{
    io::AsyncReadExt,
    net::{UnixStream, unix::pipe},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    console::Tail,
    process::{Process, Spawned, in_words},
    qmp::{QmpClient, QmpError},
    tether::Surroundings,
};

/// From QEMU's start until it answers on QMP. It opens kernel and memory before.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);
/// After QEMU's end: for the last bytes of its output to be read.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

pub(crate) struct Machine {
    process: Process,
    qmp: OnceLock<QmpClient>,
    console: Tail,
    messages: Tail,
}

/// What the watch over a machine needs besides the machine.
pub(crate) struct Watch {
    /// Where the end is told.
    pub(crate) exit: watch::Sender<Option<VmExit>>,
    /// Whether the end has been asked for.
    pub(crate) asked: Arc<AtomicBool>,
    /// Where to leave logs after an end that was not asked for.
    pub(crate) keep_in: Option<PathBuf>,
}

impl Machine {
    /// Starts QEMU in these surroundings. The returned stream is QMP's near end, for [`Machine::negotiate`].
    pub(crate) async fn launch(
        program: OsString,
        arguments: Vec<OsString>,
        surroundings: Surroundings,
        watch: Watch,
    ) -> io::Result<(Arc<Self>, UnixStream)> {
        let (near, far) = StdUnixStream::pair()?;
        near.set_nonblocking(true)?;
        let near = UnixStream::from_std(near)?;
        let command_line = readable(&program, &arguments);
        tracing::debug!(command_line, "starting QEMU");
        let Spawned {
            process,
            stdout,
            stderr,
        } = Process::spawn(&program, arguments, far.into(), surroundings).await?;
        tracing::debug!(pid = process.id(), "QEMU started");
        let machine = Arc::new(Self {
            process,
            qmp: OnceLock::new(),
            console: Tail::default(),
            messages: Tail::default(),
        });
        let readers = [
            read_into(
                stdout,
                machine.console.clone(),
                |line| tracing::debug!(target: "console", "{line}"),
            )?,
            read_into(
                stderr,
                machine.messages.clone(),
                |line| tracing::warn!(target: "qemu", "{line}"),
            )?,
        ];
        tokio::spawn(watch_over(Arc::clone(&machine), readers, watch, command_line));
        Ok((machine, near))
    }

    /// Speaks QMP's first words; from then on [`Machine::qmp`] is there.
    pub(crate) async fn negotiate(&self, stream: UnixStream) -> Result<(), QmpError> {
        let client = QmpClient::connect(stream, HANDSHAKE_LIMIT).await?;
        // Only the one who launched the machine holds the stream, so nobody was faster.
        let _ = self.qmp.set(client);
        Ok(())
    }

    /// The control connection, once negotiated.
    pub(crate) fn qmp(&self) -> Option<&QmpClient> {
        self.qmp.get()
    }

    /// The console's last lines, oldest first.
    pub(crate) fn console_tail(&self) -> Vec<String> {
        self.console.snapshot()
    }

    /// QEMU's process number.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Kills QEMU.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }
}

/// Reads a pipe to its end.
fn read_into(pipe: OwnedFd, tail: Tail, each: impl Fn(&str) + Send + 'static) -> io::Result<JoinHandle<()>> {
    let mut pipe = pipe::Receiver::from_owned_fd(pipe)?;
    Ok(tokio::spawn(async move {
        let mut buffer = vec![0; 16 << 10];
        loop {
            match pipe.read(&mut buffer).await {
                Ok(0) => return,
                Ok(length) => tail.push(&buffer[..length], &each),
                Err(error) => {
                    tracing::warn!(%error, "QEMU's output could not be read");
                    return;
                }
            }
        }
    }))
}

/// Waits for the end, gathers the last words, and tells.
async fn watch_over(machine: Arc<Machine>, readers: [JoinHandle<()>; 2], watch: Watch, command_line: String) {
    let status = machine.process.ended().await;
    // A process that inherited the pipes would hold them open; the words read so far must do then.
    for mut reader in readers {
        if timeout(DRAIN_LIMIT, &mut reader).await.is_err() {
            reader.abort();
        }
    }
    let mut words = in_words(status);
    if let Some(qmp) = machine.qmp() {
        let _ = timeout(DRAIN_LIMIT, qmp.closed()).await;
        if let Some(reason) = qmp.shutdown_reason() {
            words = format!("{words} ({reason})");
        }
    }
    let exit = VmExit {
        expected: watch.asked.load(Ordering::SeqCst),
        status: words,
        message: machine.messages.snapshot().join("\n"),
        console_tail: machine.console.snapshot(),
    };
    tracing::debug!(status = exit.status, expected = exit.expected, "QEMU ended");
    if let Some(dir) = watch.keep_in.filter(|_| !exit.expected) {
        for (name, text) in [
            ("console.log", exit.console_tail.join("\n")),
            ("qemu.log", exit.message.clone()),
            ("command-line", command_line),
        ] {
            if let Err(error) = tokio::fs::write(dir.join(name), text + "\n").await {
                tracing::warn!(%error, name, "could not be kept");
            }
        }
    }
    watch.exit.send_replace(Some(exit));
}

/// The command as a person would type it, near enough.
fn readable(program: &OsString, arguments: &[OsString]) -> String {
    let quoted = std::iter::once(program).chain(arguments).map(|argument| {
        let argument = argument.to_string_lossy();
        if argument.contains([' ', '"', '\'', '$', '\\']) {
            format!("'{}'", argument.replace('\'', r"'\''"))
        } else {
            argument.into_owned()
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}
