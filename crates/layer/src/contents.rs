//! Contents of regular files, from the archive to blocks.

use std::io::BufRead;

use cofferdam_archive::{Archive, Segment};

use crate::{
    LayerError,
    space::{BLOCK, Space},
    tree::{Flags, Inode, Tree},
};

/// Bytes of one run in a kept map.
const RUN_BYTES: usize = 24;

/// Blocks of a file that lie in a row, in blocks of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Where they are in the file.
    pub(crate) logical: u64,
    /// Where they are in the file system.
    pub(crate) physical: u64,
    /// How many.
    pub(crate) count: u64,
}

/// Writes the current entry's data; `inode` then says where it is. `unit`: blocks that a sparse file has or has not
/// as one.
pub(crate) fn store<R: BufRead>(
    archive: &mut Archive<R>,
    tree: &mut Tree,
    space: &mut Space<'_>,
    inode: &mut Inode,
    segments: Option<&[Segment]>,
    unit: u64,
) -> Result<(), LayerError> {
    let Some(segments) = segments else {
        inode.at = space.allocate(inode.size.div_ceil(BLOCK))?;
        return copy(archive, space, inode.at * BLOCK, inode.size).map(drop);
    };
    let runs = allocate_runs(space, segments, unit)?;
    let mut map = Vec::with_capacity(runs.len() * RUN_BYTES);
    for run in &runs {
        for number in [run.logical, run.physical, run.count] {
            map.extend_from_slice(&number.to_le_bytes());
        }
    }
    inode.extra = tree.append_counted(&map)?;
    inode.flags.set(Flags::MAPPED);
    let mut runs = runs.iter();
    let mut current = runs.next();
    for segment in segments.iter().filter(|segment| segment.length > 0) {
        // Runs and segments ascend, and each segment lies in one run.
        while current.is_some_and(|run| (run.logical + run.count) * BLOCK <= segment.offset) {
            current = runs.next();
        }
        let Some(run) = current else { break };
        let position = run.physical * BLOCK + (segment.offset - run.logical * BLOCK);
        copy(archive, space, position, segment.length)?;
    }
    Ok(())
}

/// Where a file's blocks are, in ascending order.
pub(crate) fn runs(tree: &mut Tree, inode: &Inode) -> Result<Vec<Run>, LayerError> {
    if !inode.flags.has(Flags::MAPPED) {
        let whole = Run {
            logical: 0,
            physical: inode.at,
            count: inode.size.div_ceil(BLOCK),
        };
        return Ok(if whole.count == 0 { Vec::new() } else { vec![whole] });
    }
    let map = tree.read_counted(inode.extra)?;
    let number = |run: &[u8], at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&run[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let run = |run: &[u8]| Run {
        logical: number(run, 0),
        physical: number(run, 8),
        count: number(run, 16),
    };
    Ok(map.chunks_exact(RUN_BYTES).map(run).collect())
}

/// Blocks for segments: neighbours that touch the same unit share a run.
fn allocate_runs(space: &mut Space<'_>, segments: &[Segment], unit: u64) -> Result<Vec<Run>, LayerError> {
    let unit_bytes = unit * BLOCK;
    let mut wanted: Vec<(u64, u64)> = Vec::new();
    for segment in segments.iter().filter(|segment| segment.length > 0) {
        let first = segment.offset / unit_bytes * unit;
        let end = (segment.offset + segment.length).div_ceil(unit_bytes) * unit;
        match wanted.last_mut() {
            Some((_, last)) if first <= *last => *last = end.max(*last),
            _ => wanted.push((first, end)),
        }
    }
    wanted
        .into_iter()
        .map(|(logical, end)| {
            let count = end - logical;
            let physical = space.allocate(count)?;
            Ok(Run {
                logical,
                physical,
                count,
            })
        })
        .collect()
}

/// Copies up to `length` bytes of the entry's data to a position of the file.
fn copy<R: BufRead>(
    archive: &mut Archive<R>,
    space: &Space<'_>,
    position: u64,
    length: u64,
) -> Result<u64, LayerError> {
    let mut done = 0;
    while done < length {
        let data = archive.data()?;
        if data.is_empty() {
            break;
        }
        let piece = data
            .len()
            .min(usize::try_from(length - done).unwrap_or(usize::MAX));
        // Zeros are what the file has there already: an archive of nothing else takes no room on the host.
        if !is_zero(&data[..piece]) {
            space.write(position + done, &data[..piece])?;
        }
        archive.consume(piece);
        done += piece as u64;
    }
    Ok(done)
}

/// Whether there are only zeros. What is not rarely begins with many.
fn is_zero(bytes: &[u8]) -> bool {
    let (head, tail) = bytes.split_at(bytes.len().min(64));
    head.iter().all(|byte| *byte == 0) && tail.iter().all(|byte| *byte == 0)
}
