//! Where everything is: block groups, their descriptors, and the superblock.
//! Source: Documentation/filesystems/ext4/super.rst and group_descr.rst.

use super::inode::{EXTRA_BYTES, INODE_BYTES};
use crate::space::BLOCK;

/// Blocks of a group: one block's bits.
pub(super) const GROUP_BLOCKS: u64 = 32_768;
/// Inodes that a group can have: one block's bits.
const GROUP_INODES: u64 = 32_768;
/// Bytes of a group's descriptor.
pub(super) const DESCRIPTOR_BYTES: usize = 32;
/// Blocks kept for descriptors: how many groups there will be is known only at the end. They allow for 1 TiB, and those
/// that are not needed are free blocks, and a hole in the file.
const DESCRIPTOR_BLOCKS: u64 = 64;
/// The first block of contents.
pub(super) const FIRST_BLOCK: u64 = 1 + DESCRIPTOR_BLOCKS;
/// Blocks there can be.
pub(super) const MOST_BLOCKS: u64 = MOST_GROUPS * GROUP_BLOCKS;
const MOST_GROUPS: u64 = DESCRIPTOR_BLOCKS * BLOCK / DESCRIPTOR_BYTES as u64;
/// The first inode that is not the file system's own.
pub(super) const FIRST_INODE: u32 = 11;
/// Inodes in a block of the table.
const BLOCK_INODES: u64 = BLOCK / INODE_BYTES as u64;

const COMPATIBLE: u32 = 0x8 /* ext_attr */ | 0x20 /* dir_index */ | 0x200 /* sparse_super2 */;
const INCOMPATIBLE: u32 = 0x2 /* filetype */ | 0x40 /* extents */ | 0x200 /* flex_bg */;
const READ_ONLY_COMPATIBLE: u32 = 0x2 /* large_file */ | 0x8 /* huge_file */ | 0x20 /* dir_nlink */
    | 0x40 /* extra_isize */ | 0x1000 /* readonly */;
/// Names are hashed as unsigned bytes.
const UNSIGNED_HASH: u32 = 2;
const HALF_MD4: u8 = 1;

/// The file system's measures, in blocks where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Groups.
    pub(super) groups: u64,
    /// Inodes of each.
    pub(super) group_inodes: u64,
    /// The first block bitmap; the others follow, then the inode bitmaps, then the tables.
    pub(super) bitmaps: u64,
    /// All blocks.
    pub(super) blocks: u64,
}

impl Geometry {
    /// Room for `inodes`, the file system's own included, after `used` blocks. `None` if there is none.
    pub(super) fn after(used: u64, inodes: u64) -> Option<Self> {
        let first = used.div_ceil(GROUP_BLOCKS).max(inodes.div_ceil(GROUP_INODES));
        (first..=MOST_GROUPS)
            .map(|groups| {
                let group_inodes = inodes.div_ceil(groups).next_multiple_of(BLOCK_INODES);
                Self {
                    groups,
                    group_inodes,
                    bitmaps: used,
                    blocks: used + groups * (2 + group_inodes / BLOCK_INODES),
                }
            })
            .find(|geometry| {
                let groups = geometry.blocks.div_ceil(GROUP_BLOCKS);
                groups <= geometry.groups && geometry.group_inodes <= GROUP_INODES
            })
            .map(|mut geometry| {
                // Groups that only inodes need: the last one has to have a block.
                geometry.blocks = geometry.blocks.max((geometry.groups - 1) * GROUP_BLOCKS + 1);
                geometry
            })
    }

    /// A group's block bitmap.
    pub(super) fn block_bitmap(&self, group: u64) -> u64 {
        self.bitmaps + group
    }

    /// A group's inode bitmap.
    pub(super) fn inode_bitmap(&self, group: u64) -> u64 {
        self.bitmaps + self.groups + group
    }

    /// A group's inode table.
    pub(super) fn inode_table(&self, group: u64) -> u64 {
        self.bitmaps + 2 * self.groups + group * (self.group_inodes / BLOCK_INODES)
    }

    /// All inodes.
    pub(super) fn inodes(&self) -> u64 {
        self.groups * self.group_inodes
    }

    /// Blocks of a group: the last has fewer.
    pub(super) fn blocks_of(&self, group: u64) -> u64 {
        (self.blocks - group * GROUP_BLOCKS).min(GROUP_BLOCKS)
    }

    /// Blocks of the descriptors.
    pub(super) fn descriptor_blocks(&self) -> u64 {
        (self.groups * DESCRIPTOR_BYTES as u64).div_ceil(BLOCK)
    }

    /// The descriptor of a group.
    pub(super) fn descriptor(&self, group: u64, free: Free) -> [u8; DESCRIPTOR_BYTES] {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x0, &(self.block_bitmap(group) as u32).to_le_bytes());
        put(0x4, &(self.inode_bitmap(group) as u32).to_le_bytes());
        put(0x8, &(self.inode_table(group) as u32).to_le_bytes());
        put(0xC, &(free.blocks as u16).to_le_bytes());
        put(0xE, &(free.inodes as u16).to_le_bytes());
        put(0x10, &(free.directories as u16).to_le_bytes());
        bytes
    }

    /// The superblock's 1024 bytes.
    pub(super) fn superblock(&self, free: Free, uuid: [u8; 16]) -> [u8; 1024] {
        let mut bytes = [0; 1024];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x0, &(self.inodes() as u32).to_le_bytes());
        put(0x4, &(self.blocks as u32).to_le_bytes());
        put(0xC, &(free.blocks as u32).to_le_bytes());
        put(0x10, &(free.inodes as u32).to_le_bytes());
        put(0x18, &2u32.to_le_bytes()); // blocks of 1024 << 2 bytes
        put(0x1C, &2u32.to_le_bytes()); // the same for clusters
        put(0x20, &(GROUP_BLOCKS as u32).to_le_bytes());
        put(0x24, &(GROUP_BLOCKS as u32).to_le_bytes());
        put(0x28, &(self.group_inodes as u32).to_le_bytes());
        put(0x36, &0xFFFFu16.to_le_bytes()); // no check after some number of mounts
        put(0x38, &0xEF53u16.to_le_bytes()); // magic
        put(0x3A, &1u16.to_le_bytes()); // clean
        put(0x3C, &1u16.to_le_bytes()); // on errors: continue
        put(0x4C, &1u32.to_le_bytes()); // revision with features
        put(0x54, &FIRST_INODE.to_le_bytes());
        put(0x58, &(INODE_BYTES as u16).to_le_bytes());
        put(0x5C, &COMPATIBLE.to_le_bytes());
        put(0x60, &INCOMPATIBLE.to_le_bytes());
        put(0x64, &READ_ONLY_COMPATIBLE.to_le_bytes());
        put(0x68, &uuid);
        put(0xFC, &[HALF_MD4]);
        put(0x15C, &EXTRA_BYTES.to_le_bytes()); // at least
        put(0x15E, &EXTRA_BYTES.to_le_bytes()); // wanted
        put(0x160, &UNSIGNED_HASH.to_le_bytes());
        put(0x174, &[self.groups.next_power_of_two().ilog2().max(1) as u8]); // groups that are one flexible group
        bytes
    }
}

/// What is free or counted in a group, or in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Free {
    /// Free blocks.
    pub(super) blocks: u64,
    /// Free inodes.
    pub(super) inodes: u64,
    /// Directories.
    pub(super) directories: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everything_has_its_place(used in FIRST_BLOCK..MOST_BLOCKS / 2, inodes in 11u64..20_000_000) {
            let geometry = Geometry::after(used, inodes).expect("room");
            prop_assert!(geometry.inodes() >= inodes);
            prop_assert!(geometry.group_inodes <= GROUP_INODES && geometry.group_inodes.is_multiple_of(16));
            prop_assert_eq!(geometry.blocks.div_ceil(GROUP_BLOCKS), geometry.groups);
            let last = geometry.groups - 1;
            prop_assert!(geometry.inode_table(last) + geometry.group_inodes / 16 <= geometry.blocks);
            prop_assert!((1..=GROUP_BLOCKS).contains(&geometry.blocks_of(last)));
        }
    }
}
