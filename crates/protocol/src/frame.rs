//! Frames: a 16-byte little-endian header and a body (GCS bridge protocol §2).
//!
//! | Offset | Size | Field |
//! |---|---|---|
//! | 0 | 4 | [`MessageType`] |
//! | 4 | 4 | size of header and body, in bytes; at least 16 |
//! | 8 | 8 | id: a request's number, echoed by its response; 0 for notifications |
//!
//! The size field is never trusted: a buffer grows only as bytes really arrive.

use std::io::{self, Read};

use crate::MessageType;

/// Size of the header in bytes.
pub const HEADER_BYTES: usize = 16;

/// The largest frame a guest may send, header included. The protocol fixes it.
pub const MAX_GUEST_FRAME_BYTES: usize = 65_536;

/// The largest frame a host may send, header included. The protocol sets no limit. 4 MiB is far above the largest
/// request there is (`Create` with a whole OCI spec; specs of hundreds of KiB are already rare), and an agent with
/// a few such frames in flight still fits a small VM.
pub const MAX_HOST_FRAME_BYTES: usize = 4 << 20;

/// One message on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What kind of message it is.
    pub message_type: MessageType,
    /// The request's number.
    pub id: u64,
    /// The JSON text, perhaps ending in a newline.
    pub body: Vec<u8>,
}

/// Why a stream cannot be cut into frames. The stream is useless from there on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The size field is smaller than a header.
    #[error("a frame of {size} bytes is smaller than its header of {HEADER_BYTES}")]
    TooShort {
        /// The size field.
        size: u32,
    },
    /// The frame is larger than its direction allows.
    #[error("a frame of {size} bytes is larger than the limit of {max_bytes}")]
    TooLarge {
        /// Header and body.
        size: u64,
        /// The limit.
        max_bytes: usize,
    },
    /// The stream ended within a frame.
    #[error("the stream ended {missing} bytes before the end of a frame")]
    Truncated {
        /// How many bytes more would have been needed, as far as can be told.
        missing: usize,
    },
    /// Reading failed.
    #[error("reading a frame: {0}")]
    Io(#[from] io::Error),
}

/// A header, checked against the limit of its direction.
#[derive(Debug, Clone, Copy)]
struct Header {
    message_type: MessageType,
    body_bytes: usize,
    id: u64,
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES], max_bytes: usize) -> Result<Self, FrameError> {
        let [t0, t1, t2, t3, s0, s1, s2, s3, id @ ..] = *bytes;
        let size = u32::from_le_bytes([s0, s1, s2, s3]);
        let too_large = FrameError::TooLarge {
            size: size.into(),
            max_bytes,
        };
        let Ok(total) = usize::try_from(size) else {
            return Err(too_large);
        };
        let Some(body_bytes) = total.checked_sub(HEADER_BYTES) else {
            return Err(FrameError::TooShort { size });
        };
        if total > max_bytes {
            return Err(too_large);
        }
        let message_type = MessageType(u32::from_le_bytes([t0, t1, t2, t3]));
        Ok(Self {
            message_type,
            body_bytes,
            id: u64::from_le_bytes(id),
        })
    }
}

/// The bytes of one frame. Refused where it would exceed `max_bytes`: the caller answers with something smaller
/// rather than break the stream.
pub fn encode(
    message_type: MessageType,
    id: u64,
    body: &[u8],
    max_bytes: usize,
) -> Result<Vec<u8>, FrameError> {
    let total = HEADER_BYTES.saturating_add(body.len());
    let size = match u32::try_from(total) {
        Ok(size) if total <= max_bytes => size,
        _ => {
            return Err(FrameError::TooLarge {
                size: total as u64,
                max_bytes,
            });
        }
    };
    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(&message_type.0.to_le_bytes());
    bytes.extend_from_slice(&size.to_le_bytes());
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(body);
    Ok(bytes)
}

impl Frame {
    /// The bytes of this frame; see [`encode`].
    pub fn encode(&self, max_bytes: usize) -> Result<Vec<u8>, FrameError> {
        encode(self.message_type, self.id, &self.body, max_bytes)
    }
}

/// Reads one frame, blocking. `None` where the stream ends between two frames.
pub fn read_frame(stream: &mut impl Read, max_bytes: usize) -> Result<Option<Frame>, FrameError> {
    let mut header = [0; HEADER_BYTES];
    let mut have = 0;
    while have < HEADER_BYTES {
        match stream.read(&mut header[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => {
                return Err(FrameError::Truncated {
                    missing: HEADER_BYTES - have,
                });
            }
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let header = Header::parse(&header, max_bytes)?;
    let mut body = Vec::new();
    // `read_to_end` grows the buffer as bytes arrive, so a size field alone costs nothing.
    stream.take(header.body_bytes as u64).read_to_end(&mut body)?;
    if body.len() < header.body_bytes {
        return Err(FrameError::Truncated {
            missing: header.body_bytes - body.len(),
        });
    }
    Ok(Some(Frame {
        message_type: header.message_type,
        id: header.id,
        body,
    }))
}

/// Cuts frames out of bytes pushed in pieces of any size. It does no I/O and holds only bytes pushed so far.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that have been handed out already.
    consumed: usize,
    max_bytes: usize,
}

impl Decoder {
    /// A decoder that refuses frames larger than `max_bytes`, header included.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            buffer: Vec::new(),
            consumed: 0,
            max_bytes,
        }
    }

    /// Adds bytes from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, `None` where more bytes are needed. After an error the stream cannot be resumed; the
    /// same error comes back.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.buffer[self.consumed..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::parse(header, self.max_bytes)?;
        let Some(body) = rest.get(..header.body_bytes) else {
            return Ok(None);
        };
        let frame = Frame {
            message_type: header.message_type,
            id: header.id,
            body: body.to_vec(),
        };
        self.consumed += HEADER_BYTES + header.body_bytes;
        if self.consumed == self.buffer.len() {
            self.buffer.clear();
            self.consumed = 0;
        }
        Ok(Some(frame))
    }

    /// To be called at the end of the stream, when [`Decoder::next_frame`] has nothing more: an error unless the
    /// stream ended between two frames.
    pub fn finish(&self) -> Result<(), FrameError> {
        let rest = &self.buffer[self.consumed..];
        let wanted = match rest.first_chunk::<HEADER_BYTES>() {
            None if rest.is_empty() => return Ok(()),
            None => HEADER_BYTES,
            Some(header) => HEADER_BYTES + Header::parse(header, self.max_bytes)?.body_bytes,
        };
        Err(FrameError::Truncated {
            missing: wanted.saturating_sub(rest.len()),
        })
    }
}

/// Feeds arbitrary bytes to everything that reads a peer's bytes. An entry point for fuzzers and property tests:
/// it must return for any input.
pub fn fuzz(bytes: &[u8]) {
    let mut decoder = Decoder::new(MAX_GUEST_FRAME_BYTES);
    for piece in bytes.chunks(7) {
        decoder.push(piece);
        while let Ok(Some(frame)) = decoder.next_frame() {
            crate::message::fuzz_body(&frame.body);
        }
    }
    let _ = decoder.finish();
    let mut stream = bytes;
    while let Ok(Some(frame)) = read_frame(&mut stream, MAX_GUEST_FRAME_BYTES) {
        crate::message::fuzz_body(&frame.body);
    }
}
