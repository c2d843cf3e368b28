//! The dm-verity tree behind a file system.
//!
//! Block after block: the superblock, then the levels of the tree, the smallest first. Each block of a level holds the
//! hashes of 128 blocks of the level below; the lowest level's are those of the file system. There is no salt: the same
//! layer gives the same tree.
//!
//! Source: Documentation/admin-guide/device-mapper/verity.rst, "Hash Tree"; cryptsetup's on-disk format
//! (DMVerity wiki page). `veritysetup verify` agrees with every output.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use sha2::{Digest, Sha256};

use crate::space::BLOCK;

const BLOCK_BYTES: usize = BLOCK as usize;
/// Bytes of a hash.
const HASH: usize = 32;
/// Hashes of a block.
const IN_BLOCK: u64 = BLOCK / HASH as u64;
/// Threads that hash; more would want more memory than time.
const MOST_THREADS: usize = 4;

/// A tree that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tree {
    /// The hash of all.
    pub(crate) root: [u8; HASH],
    /// One past its last block.
    pub(crate) end: u64,
}

/// A level of the tree, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    first: u64,
    count: u64,
}

/// Writes the tree of the first `blocks` of a file behind them.
pub(crate) fn append(file: &File, blocks: u64, uuid: [u8; 16]) -> io::Result<Tree> {
    file.write_all_at(&superblock(blocks, uuid), blocks * BLOCK)?;
    let levels = levels(blocks);
    let mut below = Level {
        first: 0,
        count: blocks,
    };
    for level in &levels {
        hash_level(file, below, *level)?;
        below = *level;
    }
    let mut top = [0; BLOCK_BYTES];
    file.read_exact_at(&mut top, below.first * BLOCK)?;
    Ok(Tree {
        root: Sha256::digest(top).into(),
        end: blocks + 1 + levels.iter().map(|level| level.count).sum::<u64>(),
    })
}

/// The levels, the lowest first; none over a single block. On the disk the highest comes first.
fn levels(blocks: u64) -> Vec<Level> {
    let mut counts = Vec::new();
    let mut below = blocks;
    while below > 1 {
        below = below.div_ceil(IN_BLOCK);
        counts.push(below);
    }
    let mut end = blocks + 1 + counts.iter().sum::<u64>();
    counts
        .into_iter()
        .map(|count| {
            end -= count;
            Level { first: end, count }
        })
        .collect()
}

/// Hashes the blocks of one level into another, with as many threads as there are processors.
fn hash_level(file: &File, below: Level, level: Level) -> io::Result<()> {
    let next = AtomicU64::new(0);
    let work = || -> io::Result<()> {
        let mut blocks = vec![0; (IN_BLOCK * BLOCK) as usize];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= level.count {
                return Ok(());
            }
            let first = number * IN_BLOCK;
            let count = (below.count - first).min(IN_BLOCK);
            let bytes = &mut blocks[..(count * BLOCK) as usize];
            file.read_exact_at(bytes, (below.first + first) * BLOCK)?;
            let mut hashes = [0; BLOCK_BYTES];
            for (hash, block) in hashes.chunks_exact_mut(HASH).zip(bytes.chunks_exact(BLOCK_BYTES)) {
                hash.copy_from_slice(&Sha256::digest(block));
            }
            file.write_all_at(&hashes, (level.first + number) * BLOCK)?;
        }
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = processors
        .min(MOST_THREADS)
        .min(usize::try_from(level.count).unwrap_or(usize::MAX));
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others.into_iter().map(|other| match other.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        // All are waited for before the first error is told.
        let results: Vec<_> = others.collect();
        results.into_iter().fold(own, io::Result::and)
    })
}

/// What `veritysetup` writes before the tree.
fn superblock(blocks: u64, uuid: [u8; 16]) -> [u8; BLOCK_BYTES] {
    let mut bytes = [0; BLOCK_BYTES];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"verity\0\0");
    put(8, &1u32.to_le_bytes()); // version
    put(12, &1u32.to_le_bytes()); // the kind that is not Chrome OS's
    put(16, &uuid);
    put(32, b"sha256");
    put(64, &(BLOCK as u32).to_le_bytes()); // data blocks
    put(68, &(BLOCK as u32).to_le_bytes()); // hash blocks
    put(72, &blocks.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_level_comes_first() {
        let level = |first, count| Level { first, count };
        assert_eq!(levels(1), []);
        assert_eq!(levels(128), [level(129, 1)]);
        assert_eq!(levels(129), [level(131, 2), level(130, 1)]);
        assert_eq!(
            levels(128 * 128 + 1),
            [
                level(16_385 + 1 + 1 + 2, 129),
                level(16_385 + 1 + 1, 2),
                level(16_385 + 1, 1)
            ]
        );
    }
}
