//! Maps of sparse files: old GNU, and GNU's pax versions 0 and 1.

use crate::{
    ArchiveError, Segment,
    error::Where,
    header::{BLOCK_BYTES, Block},
    number,
};

/// Bytes of a number in an old GNU map.
const NUMBER: usize = 12;
/// Where a map is in an old GNU header: 4 entries, then whether more blocks follow, then the file's size.
const HEADER_MAP: usize = 386;
const HEADER_ENTRIES: usize = 4;
const HEADER_MORE: usize = 482;
const HEADER_SIZE: usize = 483;
/// The same in a block that follows.
const BLOCK_ENTRIES: usize = 21;
const BLOCK_MORE: usize = 504;

/// Offsets and lengths in turn, not yet checked.
#[derive(Debug, Default)]
pub(crate) struct Map {
    numbers: Vec<i64>,
}

impl Map {
    /// The entries of an old GNU header. Gives the file's size, and whether more blocks follow.
    pub(crate) fn start(block: &Block, at: Where<'_>) -> Result<(Self, i64, bool), ArchiveError> {
        let mut map = Self::default();
        map.add(&block[HEADER_MAP..], HEADER_ENTRIES, at)?;
        let size = &block[HEADER_SIZE..HEADER_SIZE + NUMBER];
        let size = number::field(size).map_err(|_| at.number("the size of a sparse file", size))?;
        Ok((map, size, block[HEADER_MORE] != 0))
    }

    /// The entries of a block after the header. Gives whether more follow.
    pub(crate) fn go_on(&mut self, block: &Block, at: Where<'_>) -> Result<bool, ArchiveError> {
        self.add(block, BLOCK_ENTRIES, at)?;
        Ok(block[BLOCK_MORE] != 0)
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len() / 2
    }

    fn add(&mut self, bytes: &[u8], entries: usize, at: Where<'_>) -> Result<(), ArchiveError> {
        for entry in bytes.chunks_exact(2 * NUMBER).take(entries) {
            // An entry that was not needed is zero.
            if entry[0] == 0 && entry[NUMBER] == 0 {
                break;
            }
            for bytes in entry.chunks_exact(NUMBER) {
                let number =
                    number::field(bytes).map_err(|_| at.number("the map of a sparse file", bytes))?;
                self.numbers.push(number);
            }
        }
        Ok(())
    }

    /// The map as segments of a file of `size` bytes whose data is `stored` bytes.
    pub(crate) fn segments(
        self,
        size: i64,
        stored: u64,
        at: Where<'_>,
    ) -> Result<Vec<Segment>, ArchiveError> {
        segments(&self.numbers, size, stored, at)
    }
}

/// Offsets and lengths in turn as segments.
pub(crate) fn segments(
    numbers: &[i64],
    size: i64,
    stored: u64,
    at: Where<'_>,
) -> Result<Vec<Segment>, ArchiveError> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(at.sparse("its map ends with an offset"));
    }
    let size = u64::try_from(size).map_err(|_| at.sparse("its size is negative"))?;
    let mut segments = Vec::with_capacity(pairs.len());
    let mut end = 0;
    let mut sum = 0;
    for [offset, length] in pairs {
        let (Ok(offset), Ok(length)) = (u64::try_from(*offset), u64::try_from(*length)) else {
            return Err(at.sparse("its map has a negative number"));
        };
        if offset < end {
            return Err(at.sparse("its map's pieces overlap or are not in order"));
        }
        end = offset.saturating_add(length);
        if end > size {
            return Err(at.sparse("its map goes beyond its size"));
        }
        sum += length;
        // GNU tar marks the file's end with an empty piece.
        if length > 0 {
            segments.push(Segment { offset, length });
        }
    }
    if sum != stored {
        return Err(at.sparse("its map's pieces are not as long as the data in the archive"));
    }
    Ok(segments)
}

/// A map of version 1 that is read line by line from the blocks before the data: the number of pieces, then offset and
/// length of each.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    numbers: Vec<i64>,
    expected: Option<usize>,
    line: Vec<u8>,
}

impl Lines {
    /// Takes one more block. Gives the numbers once all are there.
    pub(crate) fn block(
        &mut self,
        block: &Block,
        most: usize,
        at: Where<'_>,
    ) -> Result<Option<Vec<i64>>, ArchiveError> {
        for byte in &block[..BLOCK_BYTES] {
            if *byte != b'\n' {
                if self.line.len() >= 20 {
                    return Err(at.sparse("its map has a line that is no number"));
                }
                self.line.push(*byte);
                continue;
            }
            let number =
                number::decimal(&self.line).map_err(|_| at.number("the map of a sparse file", &self.line))?;
            self.line.clear();
            let expected = match self.expected {
                None => {
                    let count =
                        usize::try_from(number).map_err(|_| at.sparse("its map has a negative length"))?;
                    if count > most {
                        return Err(at.limit("segments of a sparse file", most as u64));
                    }
                    *self.expected.insert(count * 2)
                }
                Some(expected) => {
                    self.numbers.push(number);
                    expected
                }
            };
            if self.numbers.len() == expected {
                return Ok(Some(std::mem::take(&mut self.numbers)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Where<'static> = Where {
        offset: 0,
        path: b"f",
    };

    #[test]
    fn a_map_that_lies_is_refused() {
        let good = segments(&[0, 10, 100, 5, 200, 0], 200, 15, AT).expect("a map");
        assert_eq!(
            good,
            [
                Segment {
                    offset: 0,
                    length: 10
                },
                Segment {
                    offset: 100,
                    length: 5
                }
            ]
        );
        for (numbers, size, stored) in [
            (&[0, 10][..], 9, 10),
            (&[0, 10], 10, 9),
            (&[0, 10, 5, 10], 100, 20),
            (&[50, 10, 5, 10], 100, 20),
            (&[-1, 10], 100, 10),
            (&[0, -10], 100, 0),
            (&[0], 100, 0),
            (&[i64::MAX, i64::MAX], 100, 0),
            (&[], -1, 0),
        ] {
            assert!(segments(numbers, size, stored, AT).is_err(), "{numbers:?}");
        }
    }

    #[test]
    fn a_version_1_map_is_read_across_blocks() {
        let text: String = std::iter::once("200\n".to_owned())
            .chain((0..400).map(|n| format!("{}\n", n * 1000)))
            .collect();
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        let mut lines = Lines::default();
        let mut numbers = None;
        for block in bytes.as_chunks::<BLOCK_BYTES>().0 {
            assert!(numbers.is_none());
            numbers = lines.block(block, 200, AT).expect("well formed");
        }
        assert_eq!(numbers.map(|numbers| numbers.len()), Some(400));
    }
}
