//! Extents: where a file's blocks are.
//! Source: Documentation/filesystems/ext4/ifork.rst, "Extent Tree".

use crate::{
    LayerError,
    contents::Run,
    space::{BLOCK, Space},
};

/// Bytes of an inode's block area.
pub(super) const ROOT_BYTES: usize = 60;
/// Extents that fit there.
const IN_INODE: usize = 4;
/// Extents, or index entries, of one block.
const IN_BLOCK: usize = (BLOCK as usize - HEADER) / ENTRY;
const HEADER: usize = 12;
const ENTRY: usize = 12;
const MAGIC: u16 = 0xF30A;
/// Blocks of one initialised extent.
const LONGEST: u64 = 32_768;
/// Blocks a file can have: their numbers have 32 bits, and one is no number of a block.
pub(super) const FILE_BLOCKS: u64 = 0xFFFF_FFFF;

/// One extent, or one entry of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    logical: u32,
    physical: u64,
    /// 0 in an index.
    count: u16,
}

/// An extent tree: what is in the inode, and how many blocks are outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Root {
    /// The inode's block area.
    pub(super) bytes: [u8; ROOT_BYTES],
    /// Blocks of the tree that are not in the inode.
    pub(super) tree_blocks: u64,
}

/// Whether the runs' extents fit into the inode.
pub(super) fn fit_in_inode(runs: &[Run]) -> bool {
    runs.iter().map(|run| run.count.div_ceil(LONGEST)).sum::<u64>() <= IN_INODE as u64
}

/// The tree for some runs; what does not fit into the inode is written to new blocks.
pub(super) fn build(runs: &[Run], space: &mut Space<'_>) -> Result<Root, LayerError> {
    let mut nodes: Vec<Node> = runs.iter().flat_map(extents).collect();
    let mut depth = 0;
    let mut tree_blocks = 0;
    while nodes.len() > IN_INODE {
        let mut above = Vec::with_capacity(nodes.len().div_ceil(IN_BLOCK));
        for nodes in nodes.chunks(IN_BLOCK) {
            let mut block = vec![0; BLOCK as usize];
            fill(&mut block, nodes, IN_BLOCK, depth);
            let physical = space.append(&block)?;
            tree_blocks += 1;
            above.push(Node {
                logical: nodes[0].logical,
                physical,
                count: 0,
            });
        }
        nodes = above;
        depth += 1;
    }
    let mut bytes = [0; ROOT_BYTES];
    fill(&mut bytes, &nodes, IN_INODE, depth);
    Ok(Root { bytes, tree_blocks })
}

/// A run in pieces of at most 128 MiB.
fn extents(run: &Run) -> impl Iterator<Item = Node> {
    let run = *run;
    (0..run.count.div_ceil(LONGEST)).map(move |piece| {
        let start = piece * LONGEST;
        Node {
            // Files of more than FILE_BLOCKS are refused before.
            logical: (run.logical + start) as u32,
            physical: run.physical + start,
            count: (run.count - start).min(LONGEST) as u16,
        }
    })
}

fn fill(bytes: &mut [u8], nodes: &[Node], most: usize, depth: u16) {
    bytes[0..2].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[2..4].copy_from_slice(&(nodes.len() as u16).to_le_bytes());
    bytes[4..6].copy_from_slice(&(most as u16).to_le_bytes());
    bytes[6..8].copy_from_slice(&depth.to_le_bytes());
    for (entry, node) in bytes[HEADER..].chunks_exact_mut(ENTRY).zip(nodes) {
        let (low, high) = (node.physical as u32, (node.physical >> 32) as u16);
        entry[0..4].copy_from_slice(&node.logical.to_le_bytes());
        if depth == 0 {
            entry[4..6].copy_from_slice(&node.count.to_le_bytes());
            entry[6..8].copy_from_slice(&high.to_le_bytes());
            entry[8..12].copy_from_slice(&low.to_le_bytes());
        } else {
            entry[4..8].copy_from_slice(&low.to_le_bytes());
            entry[8..10].copy_from_slice(&high.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_cut_where_an_extent_ends() {
        let run = Run {
            logical: 10,
            physical: 1000,
            count: LONGEST * 2 + 1,
        };
        let pieces: Vec<_> = extents(&run)
            .map(|node| (node.logical, node.physical, node.count))
            .collect();
        assert_eq!(
            pieces,
            [
                (10, 1000, 32_768),
                (10 + 32_768, 1000 + 32_768, 32_768),
                (10 + 65_536, 1000 + 65_536, 1)
            ]
        );
        assert!(fit_in_inode(&[run]));
        assert!(!fit_in_inode(&[run, run]));
    }
}
