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

/// A queue between two stages. An empty chunk is the stream's end; a queue that closes without one lost its stage to a
/// panic, and the stream is not all there.
pub(super) fn queue() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::sync_channel(QUEUE);
    let receiver = Receiver {
        chunks: receiver,
        ended: false,
    };
    (Sender(sender), receiver)
}

/// The end that chunks go in.
#[derive(Debug)]
pub(super) struct Sender(mpsc::SyncSender<io::Result<Chunk>>);

impl Sender {
    /// Waits for room. False if nobody takes chunks any more, or none can follow: after the end or an error.
    pub(super) fn send(&self, chunk: io::Result<Chunk>) -> bool {
        let is_last = chunk.as_ref().map_or(true, Vec::is_empty);
        self.0.send(chunk).is_ok() && !is_last
    }
}

/// The end that chunks come out.
#[derive(Debug)]
pub(super) struct Receiver {
    chunks: mpsc::Receiver<io::Result<Chunk>>,
    ended: bool,
}

impl Receiver {
    /// Waits for the next chunk. `None` at the stream's end and after an error.
    pub(super) fn next(&mut self) -> Option<io::Result<Chunk>> {
        if self.ended {
            return None;
        }
        let next = self.chunks.recv().unwrap_or_else(|_| {
            Err(io::Error::other(
                "a thread that reads the archive ended by a panic",
            ))
        });
        self.ended = next.as_ref().map_or(true, Vec::is_empty);
        match next {
            Ok(chunk) if chunk.is_empty() => None,
            next => Some(next),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_panics_is_no_end_of_the_stream() {
        let (sender, mut receiver) = queue();
        assert!(sender.send(Ok(vec![1])));
        drop(sender);
        assert!(receiver.next().is_some_and(|chunk| chunk.is_ok()));
        assert!(receiver.next().is_some_and(|chunk| chunk.is_err()));
        assert!(receiver.next().is_none());
    }

    #[test]
    fn an_empty_chunk_ends_the_stream() {
        let (sender, mut receiver) = queue();
        assert!(!sender.send(Ok(Vec::new())));
        drop(sender);
        assert!(receiver.next().is_none());
    }
}
