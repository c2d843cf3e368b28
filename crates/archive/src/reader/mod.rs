//! The stream of entries.
//!
//! An archive ends with two blocks of zeros, with one at the end of the input, or at the end of the input where a
//! header could be: as Go's and GNU tar's readers have it, so that whatever a registry's other clients accept is
//! accepted. What is after it is read by [`Archive::finish`] and means nothing.

mod entry;

use std::io::{self, BufRead};

use crate::{
    ArchiveError, Entry, Limits,
    error::Where,
    header::{BLOCK_BYTES, Block, Header},
    pax::Extended,
};

/// Bytes of a path that are kept for messages.
const KEPT_PATH: usize = 256;

/// Reads the entries of a tar stream in order.
#[derive(Debug)]
pub struct Archive<R> {
    input: R,
    limits: Limits,
    /// Bytes consumed.
    position: u64,
    /// Bytes of the current entry's data that are left, and of the padding after them.
    data_left: u64,
    padding: u64,
    entries: u64,
    global: Extended,
    /// The current entry, for messages.
    path: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    Failed,
}

/// What headers before the entry's own said.
#[derive(Debug, Default)]
struct Before {
    extended: Option<Extended>,
    /// GNU's long name and long link.
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    bytes: usize,
}

impl Before {
    fn is_some(&self) -> bool {
        self.extended.is_some() || self.path.is_some() || self.link.is_some()
    }
}

impl<R: BufRead> Archive<R> {
    /// Starts at the stream's first byte.
    pub fn new(input: R, limits: Limits) -> Self {
        Self {
            input,
            limits,
            position: 0,
            data_left: 0,
            padding: 0,
            entries: 0,
            global: Extended::default(),
            path: Vec::new(),
            state: State::Reading,
        }
    }

    /// Offset of the next byte that is not consumed, in the decompressed stream.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next entry; what is left of the previous one's data is skipped. `None` at the archive's end.
    ///
    /// # Errors
    /// Whatever is wrong with the archive. There is no reading on after that.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        match self.state {
            State::Ended => return Ok(None),
            State::Failed => {
                return Err(ArchiveError::Failed {
                    place: self.here().place(),
                });
            }
            State::Reading => {}
        }
        let next = self.read_entry();
        match &next {
            Ok(Some(_)) => {}
            Ok(None) => self.state = State::Ended,
            Err(_) => self.state = State::Failed,
        }
        next
    }

    /// The next piece of the current entry's data, straight from the input's buffer; empty at its end. Of a sparse
    /// file: the segments' data, one after the other. Call [`Archive::consume`] with how much of it was used.
    ///
    /// # Errors
    /// The input's, and that it ends too early.
    pub fn data(&mut self) -> Result<&[u8], ArchiveError> {
        if self.data_left == 0 {
            return Ok(&[]);
        }
        let at = Where {
            offset: self.position,
            path: &self.path,
        };
        let limit = check_bytes(&self.limits, self.position, at);
        match filled(&mut self.input) {
            Ok([]) => {
                self.state = State::Failed;
                Err(at.truncated("a file's data"))
            }
            Ok(bytes) => {
                if let Err(error) = limit {
                    self.state = State::Failed;
                    return Err(error);
                }
                let length = bytes
                    .len()
                    .min(usize::try_from(self.data_left).unwrap_or(usize::MAX));
                Ok(&bytes[..length])
            }
            Err(source) => {
                self.state = State::Failed;
                Err(ArchiveError::Read {
                    place: at.place(),
                    source,
                })
            }
        }
    }

    /// Takes `length` bytes off what [`Archive::data`] gave.
    pub fn consume(&mut self, length: usize) {
        let length = length.min(usize::try_from(self.data_left).unwrap_or(usize::MAX));
        self.data_left -= length as u64;
        self.advance(length);
    }

    /// Reads to the end of the input, which a digest of the whole covers, and gives it back.
    ///
    /// # Errors
    /// The input's.
    pub fn finish(mut self) -> Result<R, ArchiveError> {
        loop {
            let length = self.fill()?.len();
            if length == 0 {
                return Ok(self.input);
            }
            self.advance(length);
        }
    }

    fn read_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        self.skip_data()?;
        let mut before = Before::default();
        loop {
            let offset = self.position;
            let Some(block) = self.header_block()? else {
                if before.is_some() {
                    return Err(ArchiveError::Stray {
                        place: self.here().place(),
                    });
                }
                return Ok(None);
            };
            let header = Header::new(&block, offset, &self.path)?;
            match header.typeflag() {
                b'x' => {
                    let records = self.records(&header, &mut before)?;
                    let segments = self.limits.segments;
                    before.extended.get_or_insert_with(|| self.global.clone()).read(
                        &records,
                        header.place(),
                        segments,
                    )?;
                }
                b'g' => {
                    let records = self.records(&header, &mut before)?;
                    let segments = self.limits.segments;
                    self.global.read(&records, header.place(), segments)?;
                    self.global.keep_as_global(header.place())?;
                }
                b'L' => before.path = Some(self.long_name(&header, &mut before)?),
                b'K' => before.link = Some(self.long_name(&header, &mut before)?),
                _ => return self.entry(&header, before).map(Some),
            }
        }
    }

    /// The data of an extended header.
    fn records(&mut self, header: &Header<'_>, before: &mut Before) -> Result<Vec<u8>, ArchiveError> {
        let size = header.size()?;
        let at = header.place();
        let length = usize::try_from(size)
            .map_err(|_| at.range("the size", size, self.limits.extended_bytes as u64))?;
        before.bytes = before.bytes.saturating_add(length);
        if before.bytes > self.limits.extended_bytes {
            return Err(at.limit("bytes of extended headers", self.limits.extended_bytes as u64));
        }
        self.expect_data(length as u64);
        let mut records = Vec::with_capacity(length);
        while records.len() < length {
            let data = self.data()?;
            records.extend_from_slice(data);
            let taken = data.len();
            self.consume(taken);
        }
        self.skip_data()?;
        Ok(records)
    }

    fn long_name(&mut self, header: &Header<'_>, before: &mut Before) -> Result<Vec<u8>, ArchiveError> {
        let mut name = self.records(header, before)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    /// The next header; `None` at the archive's end.
    fn header_block(&mut self) -> Result<Option<Block>, ArchiveError> {
        if self.fill()?.is_empty() {
            return Ok(None);
        }
        let block = self.block("a header")?;
        if block != [0; BLOCK_BYTES] {
            return Ok(Some(block));
        }
        if self.fill()?.is_empty() {
            return Ok(None);
        }
        let at = self.position;
        if self.block("the block after a block of zeros")? == [0; BLOCK_BYTES] {
            return Ok(None);
        }
        let place = Where {
            offset: at,
            path: &self.path,
        }
        .place();
        Err(ArchiveError::LoneZeroBlock { place })
    }

    /// The next 512 bytes.
    fn block(&mut self, part: &'static str) -> Result<Block, ArchiveError> {
        if let Some(block) = self.fill()?.first_chunk::<BLOCK_BYTES>() {
            let block = *block;
            self.advance(BLOCK_BYTES);
            return Ok(block);
        }
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Err(self.here().truncated(part));
            }
            let length = bytes.len().min(BLOCK_BYTES - filled);
            block[filled..filled + length].copy_from_slice(&bytes[..length]);
            filled += length;
            self.advance(length);
        }
        Ok(block)
    }

    /// Skips what is left of the data, and the padding. Padding may be cut off at the input's end: some writers do not
    /// pad the last entry.
    fn skip_data(&mut self) -> Result<(), ArchiveError> {
        while self.data_left > 0 {
            let length = self.data()?.len();
            self.consume(length);
        }
        while self.padding > 0 {
            let length = self.fill()?.len();
            if length == 0 {
                break;
            }
            let length = length.min(self.padding as usize);
            self.padding -= length as u64;
            self.advance(length);
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<&[u8], ArchiveError> {
        let at = Where {
            offset: self.position,
            path: &self.path,
        };
        check_bytes(&self.limits, self.position, at)?;
        filled(&mut self.input).map_err(|source| ArchiveError::Read {
            place: at.place(),
            source,
        })
    }

    fn advance(&mut self, length: usize) {
        self.input.consume(length);
        self.position += length as u64;
    }

    fn here(&self) -> Where<'_> {
        Where {
            offset: self.position,
            path: &self.path,
        }
    }
}

/// The input's buffer, filled in spite of signals.
fn filled(input: &mut impl BufRead) -> io::Result<&[u8]> {
    while let Err(error) = input.fill_buf() {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // There is something in it, or its end was met: this does not read.
    input.fill_buf()
}

fn check_bytes(limits: &Limits, position: u64, at: Where<'_>) -> Result<(), ArchiveError> {
    if position > limits.archive_bytes {
        return Err(at.limit("bytes", limits.archive_bytes));
    }
    Ok(())
}
