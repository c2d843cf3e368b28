//! Chunks of bytes, the queues they go through, and where empty ones wait.

use std::{
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError, mpsc},
};

/// Bytes of a chunk.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that wait between two stages.
const QUEUE: usize = 4;

/// Some bytes of the stream.
pub(super) type Chunk = Vec<u8>;

/// Empty chunks: filling one that was filled before costs no new memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool {
    empty: Arc<Mutex<Vec<Chunk>>>,
}

impl Pool {
    /// An empty chunk.
    pub(super) fn take(&self) -> Chunk {
        let mut empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        empty.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES))
    }

    /// Keeps a chunk for its next use.
    pub(super) fn give_back(&self, mut chunk: Chunk) {
        if chunk.capacity() >= CHUNK_BYTES {
            chunk.clear();
            self.empty
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(chunk);
        }
    }

    /// A chunk full of what `source` has next; empty at its end.
    pub(super) fn fill(&self, source: &mut impl Read) -> io::Result<Chunk> {
        let mut chunk = self.take();
        source.take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
        Ok(chunk)
    }
}

/// A queue between two stages.
pub(super) fn queue() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::sync_channel(QUEUE);
    (Sender(sender), Receiver(receiver))
}

/// The end that chunks go in.
#[derive(Debug)]
pub(super) struct Sender(mpsc::SyncSender<io::Result<Chunk>>);

impl Sender {
    /// Waits for room. False if nobody takes chunks any more.
    pub(super) fn send(&self, chunk: io::Result<Chunk>) -> bool {
        self.0.send(chunk).is_ok()
    }
}

/// The end that chunks come out.
#[derive(Debug)]
pub(super) struct Receiver(mpsc::Receiver<io::Result<Chunk>>);

impl Receiver {
    /// Waits for the next chunk. `None` once the stage before has ended.
    pub(super) fn next(&mut self) -> Option<io::Result<Chunk>> {
        self.0.recv().ok()
    }
}

/// A queue's chunks as a stream of bytes.
#[derive(Debug)]
pub(super) struct Stream {
    chunks: Receiver,
    pool: Pool,
    current: Chunk,
    used: usize,
}

impl Stream {
    pub(super) fn new(chunks: Receiver, pool: Pool) -> Self {
        Self {
            chunks,
            pool,
            current: Chunk::new(),
            used: 0,
        }
    }
}

impl io::BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.used == self.current.len() {
            let Some(chunk) = self.chunks.next() else {
                return Ok(&[]);
            };
            self.pool.give_back(std::mem::replace(&mut self.current, chunk?));
            self.used = 0;
        }
        Ok(&self.current[self.used..])
    }

    fn consume(&mut self, length: usize) {
        self.used += length;
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let there = io::BufRead::fill_buf(self)?;
        let length = there.len().min(bytes.len());
        bytes[..length].copy_from_slice(&there[..length]);
        self.used += length;
        Ok(length)
    }
}
