//! Bytes by position, in memory while they are few, in an unnamed file when they are many.
//!
//! A layer of a million files must not take more memory than one of a thousand. What is known of each file is kept
//! in spools: pages of 4 KiB, of which a bounded number is in memory; the others are in a temporary file that has
//! no name, so that nothing is left of it whatever happens.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

type Page = Box<[u8; PAGE]>;

/// Where a page is.
#[derive(Debug)]
enum Place {
    /// Never written: zeros.
    Nowhere,
    /// In the frame of this number.
    Memory(u32),
    /// In the file, at its own position.
    Disk,
}

/// A page in memory.
#[derive(Debug)]
struct Frame {
    bytes: Page,
    /// Which page it is.
    page: usize,
    /// Whether it differs from the file's copy.
    dirty: bool,
    /// Whether it was used since the hand last came by.
    used: bool,
}

/// Bytes by position; those never written are zero.
#[derive(Debug)]
pub(crate) struct Spool {
    places: Vec<Place>,
    frames: Vec<Frame>,
    frame_limit: usize,
    /// The next frame that is looked at when one has to go.
    hand: usize,
    file: Option<File>,
    length: u64,
}

impl Spool {
    /// An empty one that keeps at most `memory_bytes` in memory.
    pub(crate) fn new(memory_bytes: usize) -> Self {
        Self {
            places: Vec::new(),
            frames: Vec::new(),
            frame_limit: (memory_bytes / PAGE).max(2),
            hand: 0,
            file: None,
            length: 0,
        }
    }

    /// One past the last byte written.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.frames.clear();
        self.hand = 0;
        self.length = 0;
    }

    /// The bytes at `position`; those past the end are zero.
    pub(crate) fn read(&mut self, position: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let (page, start, length) = span(position + done as u64, bytes.len() - done);
            let to = &mut bytes[done..done + length];
            match self.frame_of(page, false)? {
                Some(frame) => to.copy_from_slice(&frame.bytes[start..start + length]),
                None => to.fill(0),
            }
            done += length;
        }
        Ok(())
    }

    /// `N` bytes at a position that does not straddle a page.
    pub(crate) fn read_array<const N: usize>(&mut self, position: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(position, &mut bytes)?;
        Ok(bytes)
    }

    /// Puts bytes at `position`.
    pub(crate) fn write(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let (page, start, length) = span(position + done as u64, bytes.len() - done);
            if let Some(frame) = self.frame_of(page, true)? {
                frame.bytes[start..start + length].copy_from_slice(&bytes[done..done + length]);
            }
            done += length;
        }
        self.length = self.length.max(position + bytes.len() as u64);
        Ok(())
    }

    /// Puts bytes at the end, and says where that was.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let position = self.length;
        self.write(position, bytes)?;
        Ok(position)
    }

    /// Changes the bits `first..first + count`, bit 0 being the lowest of the first byte.
    pub(crate) fn set_bits(&mut self, first: u64, count: u64, value: bool) -> io::Result<()> {
        let end = first + count;
        let mut bit = first;
        while bit < end {
            let (page, byte, _) = span(bit / 8, 1);
            let page_end = (page as u64 + 1) * PAGE as u64 * 8;
            let until = end.min(page_end);
            if let Some(frame) = self.frame_of(page, true)? {
                set_bits(&mut frame.bytes[byte..], bit % 8, until - bit, value);
            }
            bit = until;
        }
        self.length = self.length.max(end.div_ceil(8));
        Ok(())
    }

    /// The frame that holds `page`; `None` for one that was never written and is only read.
    fn frame_of(&mut self, page: usize, for_writing: bool) -> io::Result<Option<&mut Frame>> {
        if page >= self.places.len() {
            if !for_writing {
                return Ok(None);
            }
            self.places.resize_with(page + 1, || Place::Nowhere);
        }
        let number = match self.places[page] {
            Place::Memory(frame) => frame as usize,
            Place::Nowhere if !for_writing => return Ok(None),
            Place::Nowhere => {
                let number = self.free_frame(page)?;
                self.frames[number].bytes.fill(0);
                number
            }
            Place::Disk => {
                let number = self.free_frame(page)?;
                if let Some(file) = &self.file {
                    file.read_exact_at(&mut self.frames[number].bytes[..], page as u64 * PAGE as u64)?;
                }
                number
            }
        };
        let frame = &mut self.frames[number];
        frame.used = true;
        frame.dirty |= for_writing;
        Ok(Some(frame))
    }

    /// A frame for `page`: a new one, or one whose page goes to the file (second chance, in a circle).
    fn free_frame(&mut self, page: usize) -> io::Result<usize> {
        let number = if self.frames.len() < self.frame_limit {
            self.frames.push(Frame {
                bytes: Box::new([0; PAGE]),
                page,
                dirty: false,
                used: true,
            });
            self.frames.len() - 1
        } else {
            let number = self.evict()?;
            self.frames[number].page = page;
            self.frames[number].dirty = false;
            number
        };
        self.places[page] = Place::Memory(number as u32);
        Ok(number)
    }

    fn evict(&mut self) -> io::Result<usize> {
        loop {
            let number = self.hand;
            self.hand = (self.hand + 1) % self.frames.len();
            let frame = &mut self.frames[number];
            if frame.used {
                frame.used = false;
                continue;
            }
            if frame.dirty {
                let file = match &mut self.file {
                    Some(file) => file,
                    none => none.insert(tempfile::tempfile()?),
                };
                file.write_all_at(&frame.bytes[..], frame.page as u64 * PAGE as u64)?;
            }
            // A page that was written is in the file, by now or from an earlier eviction.
            self.places[frame.page] = Place::Disk;
            return Ok(number);
        }
    }
}

/// The page of a position, where in it that is, and how much of `length` lies in it.
fn span(position: u64, length: usize) -> (usize, usize, usize) {
    let start = (position % PAGE as u64) as usize;
    ((position / PAGE as u64) as usize, start, length.min(PAGE - start))
}

/// Changes `count` bits from bit `first` (below 8) of the first byte on.
fn set_bits(bytes: &mut [u8], first: u64, count: u64, value: bool) {
    let end = first + count;
    let mut bit = first;
    while bit < end {
        let byte = (bit / 8) as usize;
        if bit.is_multiple_of(8) && end - bit >= 8 {
            let whole = ((end - bit) / 8) as usize;
            bytes[byte..byte + whole].fill(if value { 0xFF } else { 0 });
            bit += whole as u64 * 8;
            continue;
        }
        let mask = 1 << (bit % 8);
        if value {
            bytes[byte] |= mask;
        } else {
            bytes[byte] &= !mask;
        }
        bit += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn more_than_fits_in_memory_is_read_back_as_it_was_written(
            writes in prop::collection::vec((0u64..100_000, prop::collection::vec(any::<u8>(), 1..9000)), 1..20),
        ) {
            let mut spool = Spool::new(4 * PAGE);
            let mut plain = vec![0u8; 120_000];
            for (position, bytes) in &writes {
                spool.write(*position, bytes).unwrap();
                plain[*position as usize..*position as usize + bytes.len()].copy_from_slice(bytes);
            }
            let mut all = vec![1; plain.len()];
            spool.read(0, &mut all).unwrap();
            prop_assert!(all == plain);
            prop_assert!(spool.frames.len() <= 4);
        }

        #[test]
        fn bits_are_those_that_were_set(
            ranges in prop::collection::vec((0u64..70_000, 0u64..40_000, any::<bool>()), 1..8),
        ) {
            let mut spool = Spool::new(2 * PAGE);
            let mut plain = vec![false; 112_000];
            for (first, count, value) in ranges {
                spool.set_bits(first, count, value).unwrap();
                plain[first as usize..(first + count) as usize].fill(value);
            }
            let mut bytes = vec![0; plain.len() / 8];
            spool.read(0, &mut bytes).unwrap();
            for (bit, value) in plain.iter().enumerate() {
                prop_assert_eq!(bytes[bit / 8] >> (bit % 8) & 1 == 1, *value, "bit {}", bit);
            }
        }
    }
}
