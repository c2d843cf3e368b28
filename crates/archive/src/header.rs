//! A header block: 512 bytes, in the layouts of v7, ustar (POSIX.1-1988), star and GNU tar.

use std::{borrow::Cow, ops::Range};

use crate::{ArchiveError, error::Where, number};

/// Headers and data come in blocks of this size.
pub(crate) const BLOCK_BYTES: usize = 512;

/// One block.
pub(crate) type Block = [u8; BLOCK_BYTES];

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPEFLAG: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_TRAILER: Range<usize> = 508..512;
const GNU_TIMES: [Range<usize>; 2] = [345..357, 357..369];

/// Whose layout the fields behind the link's target have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Nothing is there.
    V7,
    /// Devices, a prefix of 155 bytes.
    Ustar,
    /// Devices, a prefix of 131 bytes.
    Star,
    /// Devices, times, the sparse map.
    Gnu,
}

/// A header whose checksum is right. Numbers are read when they are asked for: what an entry does not need may be
/// anything.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    block: &'a Block,
    layout: Layout,
    /// Where the block starts.
    offset: u64,
}

impl<'a> Header<'a> {
    /// Checks the checksum. `before` is the entry before it, for the message.
    pub(crate) fn new(block: &'a Block, offset: u64, before: &[u8]) -> Result<Self, ArchiveError> {
        let (unsigned, signed) = sums(block);
        let stored = number::octal(&block[CHECKSUM]);
        // Some old writers added up signed characters.
        if stored != Ok(i64::from(unsigned)) && stored != Ok(i64::from(signed)) {
            let at = Where { offset, path: before };
            return Err(ArchiveError::Checksum {
                place: at.place(),
                stored: block[CHECKSUM].escape_ascii().to_string(),
                computed: unsigned,
            });
        }
        Ok(Self {
            block,
            layout: layout(block),
            offset,
        })
    }

    /// The header, and what it calls itself, for messages about it.
    pub(crate) fn place(&self) -> Where<'a> {
        Where {
            offset: self.offset,
            path: until_nul(&self.block[NAME]),
        }
    }

    pub(crate) fn typeflag(&self) -> u8 {
        self.block[TYPEFLAG]
    }

    /// Whether the layout is GNU tar's, whose sparse files star's are not.
    pub(crate) fn is_gnu(&self) -> bool {
        self.layout == Layout::Gnu
    }

    pub(crate) fn block(&self) -> &'a Block {
        self.block
    }

    /// The path, put together of its two fields.
    pub(crate) fn path(&self) -> Cow<'a, [u8]> {
        let name = until_nul(&self.block[NAME]);
        let prefix = match self.layout {
            Layout::V7 => &[],
            Layout::Ustar => until_nul(&self.block[PREFIX]),
            Layout::Star => until_nul(&self.block[STAR_PREFIX]),
            Layout::Gnu => self.prefix_in_gnu(),
        };
        if prefix.is_empty() {
            Cow::Borrowed(name)
        } else {
            Cow::Owned([prefix, b"/", name].concat())
        }
    }

    /// A prefix where GNU tar has times: Go's writer before 1.8 put one there, and with it the docker of that time,
    /// whose images still exist. As Go's reader: it is one if the times are none.
    fn prefix_in_gnu(&self) -> &'a [u8] {
        if self.typeflag() == b'S'
            || GNU_TIMES
                .into_iter()
                .all(|time| number::field(&self.block[time]).is_ok())
        {
            return &[];
        }
        let prefix = until_nul(&self.block[PREFIX]);
        if prefix.is_ascii() { prefix } else { &[] }
    }

    /// The target of a link.
    pub(crate) fn link(&self) -> &'a [u8] {
        until_nul(&self.block[LINK])
    }

    pub(crate) fn mode(&self) -> Result<u32, ArchiveError> {
        // Writers leave the file type in the upper bits.
        let mode = self.number("the mode", MODE)?;
        Ok(u32::try_from(mode & 0o7777).unwrap_or_default())
    }

    pub(crate) fn uid(&self) -> Result<i64, ArchiveError> {
        self.number("the user ID", UID)
    }

    pub(crate) fn gid(&self) -> Result<i64, ArchiveError> {
        self.number("the group ID", GID)
    }

    pub(crate) fn size(&self) -> Result<i64, ArchiveError> {
        self.number("the size", SIZE)
    }

    /// In seconds since 1970.
    pub(crate) fn mtime(&self) -> Result<i64, ArchiveError> {
        self.number("the modification time", MTIME)
    }

    /// Major and minor number of a device.
    pub(crate) fn device(&self) -> Result<(u32, u32), ArchiveError> {
        if self.layout == Layout::V7 {
            return Err(self
                .place()
                .number("the device's major number", b"(v7 headers have none)"));
        }
        let part = |field, range| {
            let value = self.number(field, range)?;
            u32::try_from(value).map_err(|_| self.place().range(field, value, u32::MAX.into()))
        };
        Ok((
            part("the device's major number", MAJOR)?,
            part("the device's minor number", MINOR)?,
        ))
    }

    fn number(&self, field: &'static str, range: Range<usize>) -> Result<i64, ArchiveError> {
        let bytes = &self.block[range];
        number::field(bytes).map_err(|_| self.place().number(field, bytes))
    }
}

/// Up to the first NUL.
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

fn layout(block: &Block) -> Layout {
    match &block[MAGIC] {
        b"ustar  \0" => Layout::Gnu,
        magic if magic.starts_with(b"ustar\0") && block[STAR_TRAILER] == *b"tar\0" => Layout::Star,
        magic if magic.starts_with(b"ustar\0") => Layout::Ustar,
        _ => Layout::V7,
    }
}

/// The sums of the block's bytes, unsigned and signed, the checksum itself as blanks.
fn sums(block: &Block) -> (u32, i32) {
    let mut unsigned: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    // Signed, a byte from 0x80 counts 256 less.
    let mut high: u32 = block.iter().map(|byte| u32::from(byte >> 7)).sum();
    for byte in &block[CHECKSUM] {
        unsigned = unsigned + u32::from(b' ') - u32::from(*byte);
        high -= u32::from(byte >> 7);
    }
    (unsigned, unsigned.cast_signed() - 256 * high.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sums_of_old_writers_are_known() {
        let mut block = [0; BLOCK_BYTES];
        block[0] = 0xff;
        block[CHECKSUM].copy_from_slice(&[0xff; 8]);
        assert_eq!(sums(&block), (255 + 8 * 32, -1 + 8 * 32));
    }

    #[test]
    fn a_checksum_that_is_no_number_is_an_error_with_its_text() {
        let mut block = [b'x'; BLOCK_BYTES];
        block[0] = b'y';
        let error = Header::new(&block, 512, b"before").unwrap_err().to_string();
        assert!(
            error.contains("byte 512") && error.contains("before") && error.contains("xxxxxxxx"),
            "{error}"
        );
    }
}
