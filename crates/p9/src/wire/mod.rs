//! The 9P2000.L messages as bytes: parsing and serialising, nothing else.
//!
//! Every message is `size[4] type[1] tag[2] body`, little-endian, `size` counting itself. A parser here takes one
//! whole frame, never reads past it, never allocates in proportion to a number the peer chose, and refuses what is
//! left over. Names and data are borrowed from the frame.
//!
//! Reference: the 9P2000.L description kept with the diod server, and plan 9's section 5 manual pages for what
//! 9P2000.L took over unchanged.

mod field;
mod flags;
mod messages;
mod types;

pub use field::{Reader, Text};
pub use flags::{GetattrMask, OpenFlags, QidType, SetattrMask};
pub use messages::{Reply, Request};
pub use types::{Attributes, FsStats, LockStatus, LockType, Names, Qid, Qids};

/// Bytes before a message's body: size, type and tag.
pub const HEADER_BYTES: usize = 7;
/// Bytes before the data of Rread and Rreaddir: the header and a count.
pub const DATA_REPLY_BYTES: usize = HEADER_BYTES + 4;
/// Bytes a client leaves for the header of a read or a write when it fits data into the message size.
pub const IO_HEADER_BYTES: u32 = 24;
/// The most names in one Twalk.
pub const MAX_WALK: usize = 16;
/// The tag that means "no tag": Tversion's.
pub const NO_TAG: u16 = u16::MAX;
/// The fid that means "no fid".
pub const NO_FID: u32 = u32::MAX;
/// The numeric user that means "not given".
pub const NO_UID: u32 = u32::MAX;
/// The protocol version spoken here.
pub const VERSION: &[u8] = b"9P2000.L";
/// The version answered to a client that asks for another one.
pub const VERSION_UNKNOWN: &[u8] = b"unknown";
/// Tunlinkat's flag for directories.
pub const AT_REMOVEDIR: u32 = 0x200;
/// Tlock's flag of a client that would like to wait.
pub const LOCK_FLAGS_BLOCK: u32 = 1;

/// Why a frame is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The frame ends inside a field.
    #[error("the message ends inside a field")]
    Truncated,
    /// Bytes follow the last field.
    #[error("{0} bytes follow the message's last field")]
    Trailing(usize),
    /// The size field disagrees with the frame's length.
    #[error("the message says it has {said} bytes and has {len}")]
    Size {
        /// The size field.
        said: u32,
        /// The frame's length in bytes.
        len: usize,
    },
    /// No message of 9P2000.L has this type.
    #[error("no message of 9P2000.L has type {0}")]
    UnknownType(u8),
    /// A Twalk or Rwalk with more than [`MAX_WALK`] elements.
    #[error("a walk of {0} elements (the most is {MAX_WALK})")]
    WalkTooLong(u16),
    /// A field too long for its length prefix (serialising only).
    #[error("a field of {0} bytes does not fit its length prefix")]
    FieldTooLong(usize),
}

/// A frame's type and tag.
///
/// # Errors
/// The frame is shorter than a header, or its size field disagrees with its length.
pub fn header(frame: &[u8]) -> Result<(u8, u16), WireError> {
    let mut reader = Reader::new(frame);
    let said = reader.u32()?;
    let kind = reader.u8()?;
    let tag = reader.u16()?;
    if usize::try_from(said) != Ok(frame.len()) {
        return Err(WireError::Size {
            said,
            len: frame.len(),
        });
    }
    Ok((kind, tag))
}
