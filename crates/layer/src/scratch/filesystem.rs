//! An empty ext4 that can be written: which of its blocks are not zero.
//!
//! Groups of 128 MiB, the bitmaps and inode tables of 16 groups together in the first of them; a journal and the root
//! directory in group 0. Bitmaps and tables that nobody has used are marked as not initialised, tables also as zero, so
//! that neither this nor the guest's kernel writes them. There are no backups of the superblock: nobody repairs a scratch
//! disk.
//!
//! Source: Documentation/filesystems/ext4/ of the kernel; the journal is in journal.rst there.

use super::{Ids, Piece, checksum::crc16};

const BLOCK: u64 = 4096;
const GROUP_BLOCKS: u64 = 32_768;
/// Inodes of a group: one for 16 KiB, as mke2fs has it.
const GROUP_INODES: u64 = 8192;
const INODE_BYTES: u64 = 256;
const TABLE_BLOCKS: u64 = GROUP_INODES * INODE_BYTES / BLOCK;
/// Groups whose bitmaps and tables are together.
const FLEX_GROUPS: u64 = 16;
const DESCRIPTOR_BYTES: u64 = 32;
/// Blocks of a journal, by the blocks of the file system: mke2fs's sizes, up to what fits into group 0.
const JOURNALS: [(u64, u64); 3] = [(32_768, 1024), (262_144, 4096), (524_288, 8192)];
const LARGEST_JOURNAL: u64 = 16_384;
/// Inodes that are the file system's own: 1 to 10.
const OWN_INODES: u64 = 10;
const ROOT_INODE: u64 = 2;
const JOURNAL_INODE: u64 = 8;

/// Flags of a group (`bg_flags`).
const INODES_UNUSED: u16 = 1;
const BLOCKS_UNUSED: u16 = 2;
const TABLE_ZEROED: u16 = 4;

const COMPATIBLE: u32 = 0x4 /* has_journal */ | 0x8 /* ext_attr */ | 0x20 /* dir_index */ | 0x200 /* sparse_super2 */;
const INCOMPATIBLE: u32 = 0x2 /* filetype */ | 0x40 /* extents */ | 0x200 /* flex_bg */;
const READ_ONLY_COMPATIBLE: u32 = 0x2 /* large_file */ | 0x8 /* huge_file */ | 0x10 /* gdt_csum */
    | 0x20 /* dir_nlink */ | 0x40 /* extra_isize */;

/// The blocks that are not zero, for a disk of `size` bytes.
pub(super) fn empty(size: u64, ids: &Ids) -> Vec<Piece> {
    let layout = Layout::of(size / BLOCK);
    let mut pieces = Vec::new();
    let mut descriptors = Vec::new();
    let mut free_blocks = 0;
    for group in 0..layout.groups() {
        let used = layout.used_in(group);
        let size = layout.blocks_of(group);
        let free = size - used;
        free_blocks += free;
        let last = group + 1 == layout.groups();
        let mut flags = TABLE_ZEROED;
        if group > 0 {
            flags |= INODES_UNUSED;
        }
        // Only a group that has no other group's tables, and is whole, can be told from its descriptor.
        if used == 0 && !last {
            flags |= BLOCKS_UNUSED;
        } else {
            pieces.push(Piece {
                at: layout.block_bitmap(group) * BLOCK,
                bytes: bitmap(used, size),
            });
        }
        let own = if group == 0 { OWN_INODES } else { 0 };
        let descriptor = Descriptor {
            block_bitmap: layout.block_bitmap(group),
            inode_bitmap: layout.inode_bitmap(group),
            inode_table: layout.inode_table(group),
            free_blocks: free,
            free_inodes: GROUP_INODES - own,
            directories: u64::from(group == 0),
            flags,
        };
        descriptors.extend_from_slice(&descriptor.to_bytes(group, &ids.filesystem));
    }
    pieces.push(Piece {
        at: layout.inode_bitmap(0) * BLOCK,
        bytes: bitmap(OWN_INODES, GROUP_INODES),
    });
    pieces.push(Piece {
        at: 1024,
        bytes: superblock(&layout, free_blocks, ids),
    });
    pieces.push(Piece {
        at: BLOCK,
        bytes: descriptors,
    });
    pieces.push(Piece {
        at: layout.inode_table(0) * BLOCK,
        bytes: inodes(&layout),
    });
    pieces.push(Piece {
        at: layout.journal() * BLOCK,
        bytes: journal_superblock(layout.journal_blocks, &ids.filesystem),
    });
    pieces.push(Piece {
        at: layout.root() * BLOCK,
        bytes: root_directory(),
    });
    pieces
}

/// Where everything is, in blocks. In each flexible group's first group: bitmaps, tables; in group 0 the superblock and
/// descriptors before, the journal and the root directory behind.
#[derive(Debug, Clone, Copy)]
struct Layout {
    blocks: u64,
    journal_blocks: u64,
}

impl Layout {
    /// For so many blocks, or a few less: a last group too small for its own tables is left out.
    fn of(blocks: u64) -> Self {
        let journal_blocks = JOURNALS
            .iter()
            .find(|(below, _)| blocks < *below)
            .map_or(LARGEST_JOURNAL, |(_, journal)| *journal);
        let mut layout = Self {
            blocks,
            journal_blocks,
        };
        let last = layout.groups() - 1;
        if last > 0 && layout.blocks_of(last) < layout.used_in(last) + 64 {
            layout.blocks = last * GROUP_BLOCKS;
        }
        layout
    }

    fn groups(&self) -> u64 {
        self.blocks.div_ceil(GROUP_BLOCKS)
    }

    fn blocks_of(&self, group: u64) -> u64 {
        (self.blocks - group * GROUP_BLOCKS).min(GROUP_BLOCKS)
    }

    fn descriptor_blocks(&self) -> u64 {
        (self.groups() * DESCRIPTOR_BYTES).div_ceil(BLOCK)
    }

    /// The first group of the one that `group` is in, and how many there are in it.
    fn flex(&self, group: u64) -> (u64, u64) {
        let first = group / FLEX_GROUPS * FLEX_GROUPS;
        (first, (self.groups() - first).min(FLEX_GROUPS))
    }

    fn flex_start(&self, first: u64) -> u64 {
        let before = if first == 0 {
            1 + self.descriptor_blocks()
        } else {
            0
        };
        first * GROUP_BLOCKS + before
    }

    fn block_bitmap(&self, group: u64) -> u64 {
        let (first, _) = self.flex(group);
        self.flex_start(first) + group - first
    }

    fn inode_bitmap(&self, group: u64) -> u64 {
        self.block_bitmap(group) + self.flex(group).1
    }

    fn inode_table(&self, group: u64) -> u64 {
        let (first, count) = self.flex(group);
        self.flex_start(first) + 2 * count + (group - first) * TABLE_BLOCKS
    }

    fn journal(&self) -> u64 {
        let (_, count) = self.flex(0);
        self.flex_start(0) + count * (2 + TABLE_BLOCKS)
    }

    fn root(&self) -> u64 {
        self.journal() + self.journal_blocks
    }

    /// Blocks used in a group: all at its start.
    fn used_in(&self, group: u64) -> u64 {
        let (first, count) = self.flex(group);
        match group {
            0 => self.root() + 1,
            _ if group == first => count * (2 + TABLE_BLOCKS),
            _ => 0,
        }
    }
}

struct Descriptor {
    block_bitmap: u64,
    inode_bitmap: u64,
    inode_table: u64,
    free_blocks: u64,
    free_inodes: u64,
    directories: u64,
    flags: u16,
}

impl Descriptor {
    fn to_bytes(&self, group: u64, uuid: &[u8; 16]) -> [u8; DESCRIPTOR_BYTES as usize] {
        const CHECKSUM: usize = 0x1E;
        let mut bytes = [0; DESCRIPTOR_BYTES as usize];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x0, &(self.block_bitmap as u32).to_le_bytes());
        put(0x4, &(self.inode_bitmap as u32).to_le_bytes());
        put(0x8, &(self.inode_table as u32).to_le_bytes());
        put(0xC, &(self.free_blocks as u16).to_le_bytes());
        put(0xE, &(self.free_inodes as u16).to_le_bytes());
        put(0x10, &(self.directories as u16).to_le_bytes());
        put(0x12, &self.flags.to_le_bytes());
        // Inodes at the table's end that were never used: all that are free.
        put(0x1C, &(self.free_inodes as u16).to_le_bytes());
        let crc = crc16(!0, uuid);
        let crc = crc16(crc, &(group as u32).to_le_bytes());
        let crc = crc16(crc, &bytes[..CHECKSUM]);
        bytes[CHECKSUM..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

fn superblock(layout: &Layout, free_blocks: u64, ids: &Ids) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let inodes = layout.groups() * GROUP_INODES;
    put(0x0, &(inodes as u32).to_le_bytes());
    put(0x4, &(layout.blocks as u32).to_le_bytes());
    put(0xC, &(free_blocks as u32).to_le_bytes());
    put(0x10, &((inodes - OWN_INODES) as u32).to_le_bytes());
    put(0x18, &2u32.to_le_bytes()); // blocks of 1024 << 2 bytes
    put(0x1C, &2u32.to_le_bytes()); // the same for clusters
    put(0x20, &(GROUP_BLOCKS as u32).to_le_bytes());
    put(0x24, &(GROUP_BLOCKS as u32).to_le_bytes());
    put(0x28, &(GROUP_INODES as u32).to_le_bytes());
    put(0x36, &0xFFFFu16.to_le_bytes()); // no check after some number of mounts
    put(0x38, &0xEF53u16.to_le_bytes()); // magic
    put(0x3A, &1u16.to_le_bytes()); // clean
    put(0x3C, &1u16.to_le_bytes()); // on errors: continue
    put(0x4C, &1u32.to_le_bytes()); // revision with features
    put(0x54, &(OWN_INODES as u32 + 1).to_le_bytes());
    put(0x58, &(INODE_BYTES as u16).to_le_bytes());
    put(0x5C, &COMPATIBLE.to_le_bytes());
    put(0x60, &INCOMPATIBLE.to_le_bytes());
    put(0x64, &READ_ONLY_COMPATIBLE.to_le_bytes());
    put(0x68, &ids.filesystem);
    put(0xE0, &(JOURNAL_INODE as u32).to_le_bytes());
    put(0xEC, &ids.hash_seed);
    put(0xFC, &[1]); // names are hashed with half MD4
    put(0xFD, &[1]); // the journal's inode has a copy
    put(0x100, &0xCu32.to_le_bytes()); // mounted with attributes and access lists
    // The copy: the block area, and the size's two halves.
    put(0x10C, &extent(layout.journal(), layout.journal_blocks));
    put(
        0x10C + 64,
        &((layout.journal_blocks * BLOCK) as u32).to_le_bytes(),
    );
    put(0x15C, &32u16.to_le_bytes()); // bytes of an inode beyond the first 128
    put(0x15E, &32u16.to_le_bytes());
    put(0x160, &2u32.to_le_bytes()); // names are unsigned bytes
    put(0x174, &[FLEX_GROUPS.ilog2() as u8]);
    bytes
}

/// The first block of the inode table: the root directory and the journal.
fn inodes(layout: &Layout) -> Vec<u8> {
    let mut table = vec![0; BLOCK as usize];
    let mut put = |number: u64, mode: u16, links: u16, first: u64, count: u64| {
        let at = ((number - 1) * INODE_BYTES) as usize;
        let inode = &mut table[at..at + INODE_BYTES as usize];
        inode[0x00..0x02].copy_from_slice(&mode.to_le_bytes());
        inode[0x04..0x08].copy_from_slice(&((count * BLOCK) as u32).to_le_bytes());
        inode[0x1A..0x1C].copy_from_slice(&links.to_le_bytes());
        inode[0x1C..0x20].copy_from_slice(&((count * BLOCK / 512) as u32).to_le_bytes());
        inode[0x20..0x24].copy_from_slice(&0x8_0000u32.to_le_bytes()); // its blocks are in extents
        inode[0x28..0x28 + 60].copy_from_slice(&extent(first, count));
        inode[0x80..0x82].copy_from_slice(&32u16.to_le_bytes());
    };
    put(ROOT_INODE, 0o040_755, 2, layout.root(), 1);
    put(
        JOURNAL_INODE,
        0o100_600,
        1,
        layout.journal(),
        layout.journal_blocks,
    );
    table
}

/// A block area with one extent.
fn extent(first: u64, count: u64) -> [u8; 60] {
    let mut bytes = [0; 60];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &0xF30Au16.to_le_bytes()); // magic
    put(2, &1u16.to_le_bytes()); // of
    put(4, &4u16.to_le_bytes());
    put(16, &(count as u16).to_le_bytes());
    put(20, &(first as u32).to_le_bytes());
    bytes
}

fn root_directory() -> Vec<u8> {
    let mut bytes = vec![0; BLOCK as usize];
    let mut put = |at: usize, length: u16, name: &[u8]| {
        bytes[at..at + 4].copy_from_slice(&(ROOT_INODE as u32).to_le_bytes());
        bytes[at + 4..at + 6].copy_from_slice(&length.to_le_bytes());
        bytes[at + 6] = name.len() as u8;
        bytes[at + 7] = 2; // a directory
        bytes[at + 8..at + 8 + name.len()].copy_from_slice(name);
    };
    put(0, 12, b".");
    put(12, BLOCK as u16 - 12, b"..");
    bytes
}

/// The journal's first block; numbers are big-endian. Blocks of zeros after it are an empty journal.
fn journal_superblock(blocks: u64, uuid: &[u8; 16]) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0x0, &0xC03B_3998u32.to_be_bytes()); // magic
    put(0x4, &4u32.to_be_bytes()); // a superblock of version 2
    put(0xC, &(BLOCK as u32).to_be_bytes());
    put(0x10, &(blocks as u32).to_be_bytes());
    put(0x14, &1u32.to_be_bytes()); // the log's first block
    put(0x18, &1u32.to_be_bytes()); // the first transaction
    put(0x30, uuid);
    put(0x40, &1u32.to_be_bytes()); // file systems that use it
    bytes
}

/// The first `used` bits set, and those from `size` on, which stand for nothing.
fn bitmap(used: u64, size: u64) -> Vec<u8> {
    let mut bytes = vec![0u8; BLOCK as usize];
    for bit in (0..used).chain(size..BLOCK * 8) {
        bytes[(bit / 8) as usize] |= 1 << (bit % 8);
    }
    bytes
}
