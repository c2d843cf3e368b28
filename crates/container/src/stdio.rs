//! The container's standard streams: relayed between the caller and the guest until each has ended.
//!
//! Output is read to its end before the container counts as finished, so nothing is cut off. A consumer that went
//! away closes our end of the stream, which the guest turns into a broken pipe for the process, as on a host.

use std::io;

use cofferdam_backend::BoxStream;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task::JoinHandle,
};

/// Bytes moved at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// The caller's ends. A stream that is `None` is not connected at all: the process has /dev/null there.
#[derive(Default)]
pub struct Stdio {
    /// What the process reads.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Where its output goes; with a terminal, all of it.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Where its error output goes; unused with a terminal.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
}

/// The running copies of one process.
#[must_use]
pub(crate) struct Relays {
    input: Option<JoinHandle<()>>,
    outputs: Vec<(&'static str, JoinHandle<io::Result<()>>)>,
}

impl Relays {
    pub(crate) fn new() -> Self {
        Self {
            input: None,
            outputs: Vec::new(),
        }
    }

    /// Copies to the process until the caller's end is reached, then tells it so.
    pub(crate) fn feed(&mut self, reader: Box<dyn AsyncRead + Send + Unpin>, stream: BoxStream) {
        self.input = Some(tokio::spawn(async move {
            if let Err(error) = feed(reader, stream).await {
                // A process need not read all of its input.
                tracing::debug!(%error, "standard input ended early");
            }
        }));
    }

    /// Copies from the process until it has closed the stream.
    pub(crate) fn drain(
        &mut self,
        name: &'static str,
        stream: BoxStream,
        writer: Box<dyn AsyncWrite + Send + Unpin>,
    ) {
        self.outputs.push((name, tokio::spawn(drain(stream, writer))));
    }

    /// Waits until all output has been handed over, and stops the input. Cancel-safe.
    pub(crate) async fn finish(&mut self) {
        while let Some((name, output)) = self.outputs.last_mut() {
            match output.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "{name} ended early"),
                Err(error) => tracing::error!(%error, "the relay of {name} failed"),
            }
            self.outputs.pop();
        }
        self.stop_input();
    }

    fn stop_input(&mut self) {
        if let Some(input) = self.input.take() {
            input.abort();
        }
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.stop_input();
        for (_, output) in &self.outputs {
            output.abort();
        }
    }
}

async fn feed(mut reader: Box<dyn AsyncRead + Send + Unpin>, mut stream: BoxStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = reader.read(&mut chunk).await?;
        if length == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&chunk[..length]).await?;
        stream.flush().await?;
    }
}

async fn drain(mut stream: BoxStream, mut writer: Box<dyn AsyncWrite + Send + Unpin>) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = stream.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        writer.write_all(&chunk[..length]).await?;
        // What a person waits for must not sit in a buffer.
        writer.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_written_before_the_end_arrives() {
        let (guest, host) = tokio::io::duplex(1 << 10);
        let (caller, mut seen) = tokio::io::duplex(1 << 20);
        let mut relays = Relays::new();
        relays.drain("stdout", Box::new(host), Box::new(caller));
        let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let mut guest = guest;
        guest.write_all(&sent).await.unwrap();
        drop(guest);
        relays.finish().await;
        drop(relays);
        let mut received = Vec::new();
        seen.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, sent);
    }

    #[tokio::test]
    async fn the_end_of_the_input_is_passed_on() {
        let (mut guest, host) = tokio::io::duplex(1 << 10);
        let mut relays = Relays::new();
        relays.feed(Box::new(&b"question"[..]), Box::new(host));
        let mut received = String::new();
        guest.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "question");
    }

    #[tokio::test]
    async fn a_consumer_that_went_away_closes_the_guests_end() {
        let (mut guest, host) = tokio::io::duplex(1 << 10);
        let (caller, seen) = tokio::io::duplex(16);
        drop(seen);
        let mut relays = Relays::new();
        relays.drain("stdout", Box::new(host), Box::new(caller));
        let refused = loop {
            if let Err(error) = guest.write_all(&[0; 512]).await {
                break error;
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
        relays.finish().await;
    }
}
