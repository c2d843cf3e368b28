//! The stream of entries.

use std::io::BufRead;

use crate::{ArchiveError, Entry, Limits};

/// Reads the entries of a tar stream in order.
#[derive(Debug)]
pub struct Archive<R> {
    input: R,
    limits: Limits,
}

impl<R: BufRead> Archive<R> {
    /// Starts at the stream's first byte.
    pub fn new(input: R, limits: Limits) -> Self {
        Self { input, limits }
    }

    /// The next entry; what is left of the previous one's data is skipped. `None` at the archive's end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let _ = (&mut self.input, &self.limits);
        Ok(None)
    }

    /// The next piece of the current entry's data, straight from the input's buffer; empty at its end. Of a sparse
    /// file: the segments' data, one after the other. Call [`Archive::consume`] with how much of it was used.
    pub fn data(&mut self) -> Result<&[u8], ArchiveError> {
        Ok(&[])
    }

    /// Takes `length` bytes off what [`Archive::data`] gave.
    pub fn consume(&mut self, length: usize) {
        self.input.consume(length);
    }

    /// Reads to the end of the input, which a digest of the whole covers, and gives it back.
    pub fn finish(self) -> Result<R, ArchiveError> {
        Ok(self.input)
    }
}
