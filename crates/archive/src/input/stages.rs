//! What the threads do.

use std::{
    io::{self, BufRead, Read},
    thread::{self, JoinHandle},
};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::{
    Compression, Digest,
    chunks::{Chunk, Pool, Receiver, Sender, Stream, queue},
};

/// The largest window that a zstd stream may ask for, as a power of two: 32 MiB, which is what the strongest level of
/// the tools that make images asks for. The decoder holds a window in memory, beside 5 MiB of chunks; levels up to 19 of
/// the zstd program ask for 8 MiB at most, and only `--ultra` and `--long` for more than this.
const WINDOW_LOG: u32 = 25;

/// What went through a stage.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) digest: Option<Digest>,
    pub(super) bytes: u64,
}

/// Digest and length of a stream.
struct Meter {
    hash: Option<Sha256>,
    bytes: u64,
}

impl Meter {
    fn new(digest: bool) -> Self {
        Self {
            hash: digest.then(Sha256::new),
            bytes: 0,
        }
    }

    fn pass(&mut self, chunk: &[u8]) {
        if let Some(hash) = &mut self.hash {
            hash.update(chunk);
        }
        self.bytes += chunk.len() as u64;
    }

    fn counted(self) -> Counted {
        Counted {
            digest: self.hash.map(Digest::from_hash),
            bytes: self.bytes,
        }
    }
}

/// How a stream with these first bytes is compressed.
pub(super) fn compression_of(first: &[u8]) -> io::Result<Compression> {
    let unsupported = |name| {
        let message = format!("it is compressed with {name}; gzip, zstd and none are what images use");
        Err(io::Error::new(io::ErrorKind::Unsupported, message))
    };
    match first {
        [0x1F, 0x8B, ..] => Ok(Compression::Gzip),
        // A frame, or one that decoders skip.
        [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Ok(Compression::Zstd),
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => unsupported("xz"),
        [
            b'B',
            b'Z',
            b'h',
            b'1'..=b'9',
            0x31,
            0x41,
            0x59,
            0x26,
            0x53,
            0x59,
            ..,
        ] => unsupported("bzip2"),
        [0x04, 0x22, 0x4D, 0x18, ..] => unsupported("lz4"),
        _ => Ok(Compression::None),
    }
}

/// Reads the source to its end.
pub(super) fn read(
    mut source: impl Read + Send + 'static,
    first: Chunk,
    pool: Pool,
    digest: bool,
) -> io::Result<(Receiver, JoinHandle<Counted>)> {
    let (sender, receiver) = queue();
    let work = move || {
        let mut meter = Meter::new(digest);
        let mut next = Ok(first);
        loop {
            if let Ok(chunk) = &next {
                meter.pass(chunk);
            }
            if !sender.send(next) {
                return meter.counted();
            }
            next = pool.fill(&mut source);
        }
    };
    let handle = thread::Builder::new()
        .name("archive source".to_owned())
        .spawn(work)?;
    Ok((receiver, handle))
}

/// Decompresses what is compressed. What is after the last member is an error, and so is less than a whole one.
pub(super) fn decompress(chunks: Receiver, compression: Compression, pool: Pool) -> io::Result<Receiver> {
    if compression == Compression::None {
        return Ok(chunks);
    }
    let (sender, receiver) = queue();
    let work = move || {
        let stream = Stream::new(chunks, pool.clone());
        match compression {
            Compression::Gzip => pump(MultiGzDecoder::new(stream), &sender, &pool),
            Compression::Zstd => match zstd_decoder(stream) {
                Ok(decoder) => pump(decoder, &sender, &pool),
                Err(error) => {
                    sender.send(Err(error));
                }
            },
            Compression::None => {}
        }
    };
    thread::Builder::new()
        .name(format!("archive {compression}"))
        .spawn(work)?;
    Ok(receiver)
}

fn zstd_decoder(stream: impl BufRead) -> io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(Explained(decoder))
}

/// zstd's words for a window that is too large say nothing of what to do about it.
struct Explained<R>(R);

impl<R: Read> Read for Explained<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes).map_err(|error| {
            if error.to_string().contains("too much memory") {
                let most = (1_u32 << WINDOW_LOG) >> 20;
                let message = format!(
                    "its zstd window is larger than {most} MiB; compress it without `--long`, at level 19 or below: {error}"
                );
                return io::Error::new(io::ErrorKind::Unsupported, message);
            }
            error
        })
    }
}

fn pump(mut decoder: impl Read, sender: &Sender, pool: &Pool) {
    while sender.send(pool.fill(&mut decoder)) {}
}

/// Digests, and hands on.
pub(super) fn digest(mut chunks: Receiver) -> io::Result<(Receiver, JoinHandle<Counted>)> {
    let (sender, receiver) = queue();
    let work = move || {
        let mut meter = Meter::new(true);
        loop {
            let next = chunks.next().unwrap_or_else(|| Ok(Chunk::new()));
            if let Ok(chunk) = &next {
                meter.pass(chunk);
            }
            if !sender.send(next) {
                return meter.counted();
            }
        }
    };
    let handle = thread::Builder::new()
        .name("archive digest".to_owned())
        .spawn(work)?;
    Ok((receiver, handle))
}
