//! The blocks of the file system in the making, and the file they are in.
//!
//! Contents are written as they come, one file after the other; what describes them comes last. A run of blocks that is
//! freed again (an entry was replaced) is a hole.

use std::{fs::File, io, os::unix::fs::FileExt};

use rustix::fs::{FallocateFlags, fallocate};

use crate::{
    LayerError,
    spool::{PAGE, Spool},
};

/// Bytes of a block, in every file system made here.
pub(crate) const BLOCK: u64 = 4096;
/// Memory for the map of used blocks, in bytes: that of 32 GiB.
const MAP_MEMORY: usize = 1 << 20;

/// What a file system is, as far as contents need to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Its name.
    pub(crate) filesystem: &'static str,
    /// The first block that contents may take.
    pub(crate) first: u64,
    /// Blocks it can have.
    pub(crate) limit: u64,
}

/// Blocks in a file.
#[derive(Debug)]
pub(crate) struct Space<'f> {
    file: &'f File,
    bounds: Bounds,
    next: u64,
    used: Spool,
}

impl<'f> Space<'f> {
    /// An empty file's blocks.
    pub(crate) fn new(file: &'f File, bounds: Bounds) -> Self {
        Self {
            file,
            bounds,
            next: bounds.first,
            used: Spool::new(MAP_MEMORY),
        }
    }

    /// One past the last block taken.
    pub(crate) fn end(&self) -> u64 {
        self.next
    }

    /// Takes `count` blocks in a row.
    pub(crate) fn allocate(&mut self, count: u64) -> Result<u64, LayerError> {
        let first = self.next;
        let end = first
            .checked_add(count)
            .filter(|end| *end <= self.bounds.limit)
            .ok_or(LayerError::TooLarge {
                filesystem: self.bounds.filesystem,
                needed: first.saturating_add(count),
                limit: self.bounds.limit,
            })?;
        self.used.set_bits(first, count, true)?;
        self.next = end;
        Ok(first)
    }

    /// Gives blocks back; what was in them is gone.
    pub(crate) fn free(&mut self, first: u64, count: u64) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.used.set_bits(first, count, false)?;
        self.erase(first, count)?;
        if first + count == self.next {
            self.next = first;
        }
        Ok(())
    }

    /// Puts bytes at a position of the file.
    pub(crate) fn write(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    /// Reads back what is at a position; 0 at the file's end.
    pub(crate) fn read_some(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(bytes, position)
    }

    /// Takes blocks for `bytes`, and puts them there.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<u64, LayerError> {
        let first = self.allocate((bytes.len() as u64).div_ceil(BLOCK))?;
        self.write(first * BLOCK, bytes)?;
        Ok(first)
    }

    /// The map of used blocks, one bit each; `page` holds those of 32,768 blocks.
    pub(crate) fn used_map(&mut self, page: u64) -> io::Result<[u8; PAGE]> {
        self.used.read_array(page * PAGE as u64)
    }

    /// Marks blocks as used that were not allocated: those that are always there.
    pub(crate) fn mark(&mut self, first: u64, count: u64) -> io::Result<()> {
        self.used.set_bits(first, count, true)
    }

    fn erase(&self, first: u64, count: u64) -> io::Result<()> {
        let (at, length) = (first * BLOCK, count * BLOCK);
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if fallocate(self.file, mode, at, length).is_ok() {
            return Ok(());
        }
        // Not every file system punches holes. Zeros only where the file reaches: what is beyond it is a hole already.
        let end = self.file.metadata()?.len().min(at + length);
        let zeros = [0; 64 * 1024];
        let mut position = at;
        while position < end {
            let piece = (end - position).min(zeros.len() as u64) as usize;
            self.write(position, &zeros[..piece])?;
            position += piece as u64;
        }
        Ok(())
    }
}
