//! The bytes of an archive, from wherever they come: read, decompressed and digested by threads of their own, so that
//! whoever takes them waits for none of it.
//!
//! | stage | does | there if |
//! |---|---|---|
//! | source | reads, and digests what it read | always |
//! | decompressor | gzip, zstd | the first bytes say so |
//! | digest | digests the archive | it is asked for |
//! | [`Input`] | hands the bytes out | |
//!
//! Stages are joined by short queues of chunks; a chunk is handed on, not copied, and comes back to be filled again. A
//! stage whose successor is gone ends.

mod chunks;
mod digest;
mod stages;

use std::{
    io::{self, BufRead, Read},
    thread::JoinHandle,
};

use self::chunks::{Pool, Stream};
pub use self::digest::{BadDigest, Digest};
use crate::Limits;

/// What is to be known of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InputOptions {
    /// The SHA-256 of what is read, as it is.
    pub compressed_digest: bool,
    /// The SHA-256 of the archive.
    pub archive_digest: bool,
}

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// It is not.
    None,
    /// gzip (RFC 1952), of one or more members.
    Gzip,
    /// Zstandard (RFC 8878), of one or more frames.
    Zstd,
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "not compressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// What was asked for in [`InputOptions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// Of what was read.
    pub compressed: Option<Digest>,
    /// How much that was, in bytes.
    pub compressed_bytes: u64,
    /// Of the archive.
    pub archive: Option<Digest>,
    /// How long it is, in bytes.
    pub archive_bytes: u64,
}

/// The archive's bytes.
#[derive(Debug)]
pub struct Input {
    compression: Compression,
    stream: Stream,
    handed_out: u64,
    limit: u64,
    source: JoinHandle<stages::Counted>,
    digest: Option<JoinHandle<stages::Counted>>,
}

impl Input {
    /// Starts reading `source`; how it is compressed is told from its first bytes.
    ///
    /// # Errors
    /// The source's first error, a compression that is not known here, and that no thread could be started.
    pub fn new(source: impl Read + Send + 'static, options: InputOptions) -> io::Result<Self> {
        let pool = Pool::default();
        let mut source = source;
        let first = pool.fill(&mut source)?;
        let compression = stages::compression_of(&first)?;
        let (mut chunks, source) = stages::read(source, first, pool.clone(), options.compressed_digest)?;
        chunks = stages::decompress(chunks, compression, pool.clone())?;
        let mut digest = None;
        if options.archive_digest {
            let (digested, handle) = stages::digest(chunks)?;
            chunks = digested;
            digest = Some(handle);
        }
        Ok(Self {
            compression,
            stream: Stream::new(chunks, pool),
            handed_out: 0,
            limit: Limits::default().archive_bytes,
            source,
            digest,
        })
    }

    /// With an end to how long the archive may be, decompressed; by default [`Limits::archive_bytes`]'s own.
    #[must_use]
    pub fn limited(mut self, archive_bytes: u64) -> Self {
        self.limit = archive_bytes;
        self
    }

    /// How the archive is compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Reads to the end, and gives the digests of all of it.
    ///
    /// # Errors
    /// What reading or decompressing the rest meets.
    pub fn finish(mut self) -> io::Result<Digests> {
        loop {
            let length = self.fill_buf()?.len();
            if length == 0 {
                break;
            }
            self.consume(length);
        }
        let archive_bytes = self.handed_out;
        // The queue's end: the stages before it have ended too, or are about to.
        drop(self.stream);
        let source = joined(self.source)?;
        let archive = self.digest.map(joined).transpose()?;
        Ok(Digests {
            compressed: source.digest,
            compressed_bytes: source.bytes,
            archive: archive.and_then(|archive| archive.digest),
            archive_bytes,
        })
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let there = self.stream.fill_buf()?;
        if there.is_empty() {
            return Ok(there);
        }
        if self.handed_out >= self.limit {
            return Err(io::Error::other(format!(
                "it is longer than {} bytes, decompressed: refused",
                self.limit
            )));
        }
        let left = usize::try_from(self.limit - self.handed_out).unwrap_or(usize::MAX);
        Ok(&there[..there.len().min(left)])
    }

    fn consume(&mut self, length: usize) {
        self.stream.consume(length);
        self.handed_out += length as u64;
    }
}

impl Read for Input {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let there = self.fill_buf()?;
        let length = there.len().min(bytes.len());
        bytes[..length].copy_from_slice(&there[..length]);
        self.consume(length);
        Ok(length)
    }
}

fn joined(thread: JoinHandle<stages::Counted>) -> io::Result<stages::Counted> {
    thread
        .join()
        .map_err(|_| io::Error::other("a thread that reads the archive ended by a panic"))
}
