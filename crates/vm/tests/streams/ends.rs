//! The host's ends of the streams: the same pattern as the guest's program, sent and held to.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{io, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The bytes of a pattern repeat after so many.
const PERIOD: usize = 1_048_573;
const LARGEST_WRITE: usize = 1 << 20;

/// The bytes of one direction: the byte at `n` depends on the seed and on `n` modulo [`PERIOD`].
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    pub(crate) fn new(seed: usize) -> Self {
        let byte = |at: u32| (at.wrapping_mul(0x9e37_79b1) >> 23) as u8 ^ seed as u8;
        Self(
            (0..(PERIOD + LARGEST_WRITE) as u32)
                .map(|at| byte(at % PERIOD as u32))
                .collect(),
        )
    }

    fn at(&self, from: usize, length: usize) -> &[u8] {
        &self.0[from % PERIOD..][..length]
    }
}

/// Sends in writes of `size`, or of all sizes up to 1 MiB in turn for 0.
pub(crate) async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: usize,
    size: usize,
    seed: usize,
) -> io::Result<()> {
    let pattern = Pattern::new(seed);
    let mut random = 0x2545_f491_u64 + seed as u64;
    let mut sent = 0;
    while sent < bytes {
        let wanted = match size {
            0 => {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                1 + (random >> 32) as usize % (1 << (random % 21))
            }
            size => size,
        };
        let length = wanted.min(bytes - sent);
        stream.write_all(pattern.at(sent, length)).await?;
        sent += length;
    }
    Ok(())
}

/// Reads up to the end and holds the bytes to the pattern; returns how many there were.
pub(crate) async fn receive(stream: &mut (impl AsyncRead + Unpin), seed: usize) -> usize {
    receive_slowly(stream, seed, 1 << 17, Duration::ZERO).await
}

/// The same, `size` bytes at a time with a pause after each read.
pub(crate) async fn receive_slowly(
    stream: &mut (impl AsyncRead + Unpin),
    seed: usize,
    size: usize,
    pause: Duration,
) -> usize {
    let pattern = Pattern::new(seed);
    let mut buffer = vec![0; size];
    let mut received = 0;
    loop {
        let length = stream.read(&mut buffer).await.unwrap();
        if length == 0 {
            return received;
        }
        let expected = pattern.at(received, length);
        if buffer[..length] != *expected {
            let wrong = buffer.iter().zip(expected).position(|(is, should)| is != should);
            panic!("byte {} is wrong", received + wrong.unwrap_or(0));
        }
        received += length;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Writes until it cannot; returns why.
pub(crate) async fn write_until_refused(stream: &mut (impl AsyncWrite + Unpin)) -> io::ErrorKind {
    let piece = [0; 4096];
    loop {
        if let Err(error) = stream.write_all(&piece).await {
            return error.kind();
        }
    }
}
