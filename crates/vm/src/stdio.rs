//! Ports for standard streams: each stream of each process has a port of its own, taken in order and never used
//! again in one VM (GCS bridge protocol §8).

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use cofferdam_backend::{Backend, BackendError, BoxListener, BoxStream};
use cofferdam_protocol::ports;

/// How long the guest may take from the request to dialling a stream. It dials before it answers the request, so
/// this runs in parallel to the request's own limit.
const DIAL_LIMIT: Duration = Duration::from_secs(60);

/// The counter of stream ports of one VM.
#[derive(Debug)]
pub(crate) struct StdioPorts {
    next: AtomicU32,
}

impl StdioPorts {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU32::new(ports::FIRST_STDIO),
        }
    }

    /// Listens on the next port. The request that names the port is sent only afterwards.
    pub(crate) async fn open(&self, backend: &dyn Backend) -> Result<StdioPort, BackendError> {
        let port = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(StdioPort {
            port,
            listener: backend.listen(port).await?,
        })
    }
}

/// A port on which exactly one stream is accepted.
#[must_use]
pub struct StdioPort {
    port: u32,
    listener: BoxListener,
}

impl StdioPort {
    /// The port's number, for the request.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.port
    }

    /// The stream, once the guest has dialled. The port closes at once, so that nobody else in the guest gets in.
    pub async fn accept(mut self) -> std::io::Result<BoxStream> {
        tokio::time::timeout(DIAL_LIMIT, self.listener.accept())
            .await
            .unwrap_or_else(|_| {
                Err(std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    format!(
                        "the guest did not dial port {:#x} within {} s",
                        self.port,
                        DIAL_LIMIT.as_secs()
                    ),
                ))
            })
    }
}
