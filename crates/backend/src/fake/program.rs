//! Scripted programs for the fake guest's containers.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};

/// SIGTERM.
const TERM: i32 = 15;
/// SIGWINCH, which ends no program.
const WINCH: i32 = 28;

/// Which processes run a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramFor {
    /// The init process of this container.
    Init(String),
    /// Every process whose first argument this is.
    Command(String),
    /// Every process that nothing else covers.
    Anything,
}

/// What a process of the fake guest does: it writes its output, then echoes its input if it should, then exits, or
/// waits for a signal. Any signal but SIGWINCH ends it at once, with 128 and the signal's number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FakeProgram {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    echoes_stdin: bool,
    exit_code: Option<u32>,
    ignores_term: bool,
}

impl FakeProgram {
    /// A program that exits with `code`.
    pub fn exits(code: u32) -> Self {
        Self {
            exit_code: Some(code),
            ..Self::default()
        }
    }

    /// A program that runs until a signal ends it.
    pub fn runs() -> Self {
        Self::default()
    }

    /// It writes this to its standard output.
    pub fn stdout(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdout = bytes.into();
        self
    }

    /// It writes this to its standard error.
    pub fn stderr(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stderr = bytes.into();
        self
    }

    /// It copies its standard input to its standard output, to the end.
    pub fn echoes_stdin(mut self) -> Self {
        self.echoes_stdin = true;
        self
    }

    /// SIGTERM does not end it.
    pub fn ignores_term(mut self) -> Self {
        self.ignores_term = true;
        self
    }

    /// Runs until it exits, or a signal ends it, and returns the exit code.
    pub(super) async fn run(&self, stdio: &mut Stdio, signals: &mut mpsc::UnboundedReceiver<i32>) -> u32 {
        tokio::select! {
            code = self.work(stdio) => code,
            signal = self.fatal_signal(signals) => 128 + signal,
        }
    }

    async fn work(&self, stdio: &mut Stdio) -> u32 {
        // A reader that has gone is the reader's choice; the program goes on.
        if let Some(stdout) = &mut stdio.stdout {
            let _ = stdout.write_all(&self.stdout).await;
        }
        if let Some(stderr) = &mut stdio.stderr {
            let _ = stderr.write_all(&self.stderr).await;
        }
        if self.echoes_stdin
            && let Some(stdin) = &mut stdio.stdin
        {
            match &mut stdio.stdout {
                Some(stdout) => drop(tokio::io::copy(stdin, stdout).await),
                None => drop(tokio::io::copy(stdin, &mut tokio::io::sink()).await),
            }
        }
        match self.exit_code {
            Some(code) => code,
            None => std::future::pending().await,
        }
    }

    async fn fatal_signal(&self, signals: &mut mpsc::UnboundedReceiver<i32>) -> u32 {
        while let Some(signal) = signals.recv().await {
            if signal != WINCH && !(signal == TERM && self.ignores_term) {
                return signal.unsigned_abs();
            }
        }
        // Nobody can signal any more.
        std::future::pending().await
    }
}

/// The streams of a process.
#[derive(Debug, Default)]
pub(super) struct Stdio {
    pub(super) stdin: Option<DuplexStream>,
    pub(super) stdout: Option<DuplexStream>,
    pub(super) stderr: Option<DuplexStream>,
}

impl Stdio {
    /// Ends the streams as the protocol says (§8): input is dropped, output is half-closed, and then the host must
    /// close its end.
    pub(super) async fn drain(self) {
        drop(self.stdin);
        let mut outputs: Vec<_> = [self.stdout, self.stderr].into_iter().flatten().collect();
        // Each ends before any close is waited for: the host may read them one after the other.
        for stream in &mut outputs {
            let _ = stream.shutdown().await;
        }
        for stream in &mut outputs {
            let _ = stream.read(&mut [0]).await;
        }
    }
}
