//! Layers as streams of bytes that go on where a connection broke.

use std::{
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use cofferdam_store::{LayerDocument, LayerSource};
use futures_util::StreamExt;
use oci_client::{
    Client, Reference,
    client::BlobResponse,
    errors::{OciDistributionError, OciErrorCode},
};
use tokio::{runtime::Runtime, sync::mpsc};

use crate::error::chain;

/// Tries without a byte in between, and the pause before the second; each next pause is twice as long.
const TRIES: u32 = 5;
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Pieces of a few KiB that wait for whoever reads.
const QUEUE: usize = 64;

/// The layers of an image in a registry.
#[derive(Debug)]
pub struct Layers {
    runtime: Runtime,
    connection: Arc<Connection>,
}

/// Whom to ask.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) reference: Reference,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

impl Layers {
    pub(crate) fn new(runtime: Runtime, connection: Arc<Connection>) -> Self {
        Self { runtime, connection }
    }
}

impl LayerSource for Layers {
    fn open(&self, _number: usize, layer: &LayerDocument) -> io::Result<Box<dyn Read + Send>> {
        let (sender, pieces) = mpsc::channel(QUEUE);
        let connection = Arc::clone(&self.connection);
        let digest = layer.name().to_string();
        let length = layer.bytes;
        self.runtime.spawn(async move {
            if let Err(error) = connection.send(&digest, length, &sender).await {
                // Whoever read has gone: nobody wants to know.
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(Box::new(Pieces {
            pieces,
            current: Bytes::new(),
        }))
    }
}

impl Connection {
    /// Sends all of a blob, from as many answers as it takes.
    async fn send(&self, digest: &str, length: u64, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        let mut done = 0;
        let mut failures = 0;
        while done < length {
            let before = done;
            let Err(error) = self.send_from(digest, &mut done, to).await else {
                if to.is_closed() || done >= length {
                    return Ok(());
                }
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("the registry sent {done} of {length} bytes"),
                ));
            };
            failures = if done > before { 1 } else { failures + 1 };
            if failures >= TRIES || !may_pass(&error) {
                return Err(io::Error::other(format!(
                    "after {done} of {length} bytes: {}",
                    chain(&error)
                )));
            }
            let pause = FIRST_PAUSE * 2u32.pow(failures - 1);
            tracing::warn!(
                digest,
                done,
                length,
                error = chain(&error),
                "fetching a layer goes on after {pause:?}"
            );
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// Sends what one answer brings from byte `done` on.
    async fn send_from(
        &self,
        digest: &str,
        done: &mut u64,
        to: &mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), OciDistributionError> {
        let response = self
            .client
            .pull_blob_stream_partial(&self.reference, digest, *done, None)
            .await?;
        let (mut stream, mut skip) = match response {
            BlobResponse::Partial(stream) => (stream, 0),
            // A registry without ranges starts anew.
            BlobResponse::Full(stream) => (stream, *done),
        };
        while let Some(piece) = stream.next().await {
            let mut piece = piece?;
            let skipped = skip.min(piece.len() as u64);
            piece.advance(skipped as usize);
            skip -= skipped;
            if piece.is_empty() {
                continue;
            }
            *done += piece.len() as u64;
            if to.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether trying again may help: broken connections, and what servers call temporary.
fn may_pass(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::RequestError(error) => !error.is_builder() && !error.is_redirect(),
        // Of the stream; a digest that is wrong stays so.
        OciDistributionError::IoError(error) => !error.to_string().to_lowercase().contains("digest"),
        other => is_busy(other),
    }
}

/// Whether the registry says that it could not answer just now.
pub(crate) fn is_busy(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ServerError { code, .. } => matches!(code, 408 | 429 | 500..),
        OciDistributionError::RegistryError { envelope, .. } => envelope
            .errors
            .iter()
            .any(|error| matches!(error.code, OciErrorCode::Toomanyrequests)),
        _ => false,
    }
}

/// The pieces as one stream.
struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(bytes.len());
        self.current.copy_to_slice(&mut bytes[..length]);
        Ok(length)
    }
}
