//! ext4, written once and only read.
//!
//! Blocks in order: superblock, group descriptors, contents as they came, directories and whatever describes blocks
//! and attributes, block bitmaps, inode bitmaps, inode tables. There is no journal, no backup of the superblock and
//! no `lost+found`: nobody writes here, and the feature `readonly` says so.
//!
//! Source: Documentation/filesystems/ext4/ of the kernel. `e2fsck -fn` agrees with every output.

mod attributes;
mod directory;
mod extents;
mod geometry;
mod hash;
mod inode;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use self::{
    geometry::{DESCRIPTOR_BYTES, FIRST_BLOCK, FIRST_INODE, Free, GROUP_BLOCKS, Geometry, MOST_BLOCKS},
    inode::{Details, EXTENTS_FL, INDEX_FL, INODE_BYTES},
};
use crate::{
    LayerError,
    assemble::Assembly,
    contents,
    space::{BLOCK, Bounds, Space},
    tree::{
        Flags, Inode, ROOT, Tree,
        node::{S_IFBLK, S_IFCHR, S_IFLNK, S_IFREG},
    },
    uuid, xattr,
};

/// The file system's name in messages.
const NAME: &str = "ext4";
/// The root directory's number.
const ROOT_INODE: u32 = 2;
/// Links of a file, and of a directory; one that has more subdirectories says 1.
const MOST_LINKS: u32 = 65_000;
/// Bytes of a symbolic link's target: below 60 in the inode, else in a block, with a zero at the end.
const IN_AREA: u64 = 60;
const LONGEST_TARGET: u64 = BLOCK - 1;
/// Bytes of the inode table that are written at once.
const TABLE_PIECE: usize = 256 * 1024;
/// A root kept in the text: the block area, then the tree's blocks.
const KEPT_ROOT: usize = extents::ROOT_BYTES + 8;

/// Blocks for contents.
pub(crate) fn bounds() -> Bounds {
    Bounds {
        filesystem: NAME,
        first: FIRST_BLOCK,
        limit: MOST_BLOCKS,
    }
}

/// A sparse file has or has not single blocks.
pub(crate) fn sparse_unit(_size: u64) -> u64 {
    1
}

/// Writes all that is not content. Gives the file system's size in blocks.
pub(crate) fn finish(assembly: &mut Assembly<'_>) -> Result<u64, LayerError> {
    let Assembly { tree, space, .. } = assembly;
    let last = number(tree)?;
    write_directories(tree, space)?;
    write_maps_and_attributes(tree, space)?;
    let used = space.end();
    let geometry = Geometry::after(used, u64::from(last)).ok_or(LayerError::TooLarge {
        filesystem: NAME,
        needed: used + u64::from(last).div_ceil(BLOCK / INODE_BYTES as u64),
        limit: MOST_BLOCKS,
    })?;
    let (directories, uuid) = write_inodes(tree, space, &geometry)?;
    space.mark(0, 1 + geometry.descriptor_blocks())?;
    space.mark(
        geometry.bitmaps,
        geometry.inode_table(geometry.groups) - geometry.bitmaps,
    )?;
    write_groups(space, &geometry, last, &directories, uuid)?;
    Ok(geometry.blocks)
}

/// Gives every inode its number, in the order of the archive. Gives the last one.
fn number(tree: &mut Tree) -> Result<u32, LayerError> {
    let mut next = FIRST_INODE;
    for record in 0..tree.inodes.count() {
        let mut inode = tree.inodes.get(record)?;
        if record == ROOT {
            inode.number = ROOT_INODE;
        } else if inode.links > 0 {
            inode.number = next;
            next = next.checked_add(1).ok_or(LayerError::TooLarge {
                filesystem: NAME,
                needed: u64::from(next) / (BLOCK / INODE_BYTES as u64),
                limit: MOST_BLOCKS,
            })?;
        }
        tree.inodes.set(record, &inode)?;
    }
    Ok(next - 1)
}

fn write_directories(tree: &mut Tree, space: &mut Space<'_>) -> Result<(), LayerError> {
    for record in 0..tree.inodes.count() {
        let mut inode = tree.inodes.get(record)?;
        if inode.links == 0 || !inode.is_dir() {
            continue;
        }
        let written = directory::write(tree, space, record).map_err(|error| tree.named(record, error))?;
        inode.at = written.first;
        inode.size = written.blocks * BLOCK;
        // The directory's own two names, and `..` of each directory in it.
        let links = written.subdirectories.saturating_add(2);
        inode.links = if links < MOST_LINKS { links } else { 1 };
        if written.indexed {
            inode.flags.set(Flags::INDEXED);
        }
        tree.inodes.set(record, &inode)?;
    }
    Ok(())
}

/// Extents that do not fit into an inode, targets of long links, and attributes in blocks.
fn write_maps_and_attributes(tree: &mut Tree, space: &mut Space<'_>) -> Result<(), LayerError> {
    let mut blocks = attributes::Blocks::default();
    for record in 0..tree.inodes.count() {
        if tree.inodes.get(record)?.links > 0 {
            write_map_and_attributes(tree, space, &mut blocks, record)
                .map_err(|error| tree.named(record, error))?;
        }
    }
    blocks.close(space)
}

fn write_map_and_attributes(
    tree: &mut Tree,
    space: &mut Space<'_>,
    blocks: &mut attributes::Blocks,
    record: u32,
) -> Result<(), LayerError> {
    let mut inode = tree.inodes.get(record)?;
    let before = inode;
    match inode.kind() {
        S_IFREG => keep_root(tree, space, &mut inode)?,
        S_IFLNK if inode.size >= IN_AREA => {
            if inode.size > LONGEST_TARGET {
                return Err(unrepresentable(format!(
                    "a target of {} bytes, and a block has room for {LONGEST_TARGET}",
                    inode.size
                )));
            }
            let target = tree.target(&inode)?;
            inode.at = space.append(&target)?;
        }
        _ => {}
    }
    let attributes = attributes::as_stored(xattr::list(tree, &inode)?);
    if !attributes.is_empty() && !attributes::fit_in_inode(&attributes)? {
        let opaque = inode.flags.has(Flags::OPAQUE);
        inode.xattrs = blocks.obtain(space, &inode, opaque, &attributes)?;
        inode.flags.set(Flags::XATTR_BLOCK);
    }
    if inode != before {
        tree.inodes.set(record, &inode)?;
    }
    Ok(())
}

/// Builds the extent tree of a file that needs more than its inode.
fn keep_root(tree: &mut Tree, space: &mut Space<'_>, inode: &mut Inode) -> Result<(), LayerError> {
    if inode.size > extents::FILE_BLOCKS * BLOCK {
        return Err(unrepresentable(format!("a file of {} bytes", inode.size)));
    }
    let runs = contents::runs(tree, inode)?;
    if extents::fit_in_inode(&runs) {
        return Ok(());
    }
    let root = extents::build(&runs, space)?;
    let blocks = runs.iter().map(|run| run.count).sum::<u64>() + root.tree_blocks;
    let mut kept = [0; KEPT_ROOT];
    kept[..extents::ROOT_BYTES].copy_from_slice(&root.bytes);
    kept[extents::ROOT_BYTES..].copy_from_slice(&blocks.to_le_bytes());
    inode.extra = tree.text.append(&kept)?;
    inode.flags.set(Flags::ROOTED);
    Ok(())
}

/// Writes the inode tables. Gives the directories of each group, and a UUID that is theirs alone.
fn write_inodes(
    tree: &mut Tree,
    space: &mut Space<'_>,
    geometry: &Geometry,
) -> Result<(BTreeMap<u64, u64>, [u8; 16]), LayerError> {
    let table = geometry.inode_table(0) * BLOCK;
    let mut directories = BTreeMap::new();
    let mut digest = Sha256::new();
    let mut piece = Vec::with_capacity(TABLE_PIECE);
    // Inode 1 is the first of the table. Those from 3 to 10 have no use here and are zero.
    let mut written = 0;
    let mut flush = |piece: &mut Vec<u8>, space: &Space<'_>| -> Result<(), LayerError> {
        digest.update(&piece);
        space.write(table + written, piece)?;
        written += piece.len() as u64;
        piece.clear();
        Ok(())
    };
    piece.resize(INODE_BYTES, 0);
    for record in 0..tree.inodes.count() {
        let inode = tree.inodes.get(record)?;
        if inode.links == 0 {
            continue;
        }
        if inode.is_dir() {
            *directories
                .entry(u64::from(inode.number - 1) / geometry.group_inodes)
                .or_insert(0) += 1;
        }
        let details = details(tree, space, &inode).map_err(|error| tree.named(record, error))?;
        piece.extend_from_slice(&inode::to_bytes(&inode, &details));
        if record == ROOT {
            piece.resize((FIRST_INODE as usize - 1) * INODE_BYTES, 0);
        }
        if piece.len() + INODE_BYTES > TABLE_PIECE {
            flush(&mut piece, space)?;
        }
    }
    flush(&mut piece, space)?;
    Ok((directories, uuid::of(digest)))
}

fn details(tree: &mut Tree, space: &mut Space<'_>, inode: &Inode) -> Result<Details, LayerError> {
    if inode.links > MOST_LINKS {
        return Err(unrepresentable(format!(
            "{} names of one file; {MOST_LINKS} are possible",
            inode.links
        )));
    }
    let mut details = Details::empty(inode.links);
    match inode.kind() {
        S_IFREG => {
            details.size = inode.size;
            details.flags = EXTENTS_FL;
            if inode.flags.has(Flags::ROOTED) {
                let kept: [u8; KEPT_ROOT] = {
                    let mut kept = [0; KEPT_ROOT];
                    tree.text.read(inode.extra, &mut kept)?;
                    kept
                };
                details.area.copy_from_slice(&kept[..extents::ROOT_BYTES]);
                let mut blocks = [0; 8];
                blocks.copy_from_slice(&kept[extents::ROOT_BYTES..]);
                details.blocks = u64::from_le_bytes(blocks);
            } else {
                let runs = contents::runs(tree, inode)?;
                details.area = extents::build(&runs, space)?.bytes;
                details.blocks = runs.iter().map(|run| run.count).sum();
            }
        }
        S_IFLNK if inode.size < IN_AREA => {
            details.size = inode.size;
            let target = tree.target(inode)?;
            details.area[..target.len()].copy_from_slice(&target);
        }
        S_IFCHR | S_IFBLK => {
            let (major, minor) = inode.device();
            details.area = inode::device_area(major, minor).ok_or_else(|| {
                unrepresentable(format!(
                    "device {major}:{minor}; major numbers end at 4095, minor ones at 1048575"
                ))
            })?;
        }
        // A long link's target, and a directory, are runs of blocks.
        _ if inode.is_dir() || inode.kind() == S_IFLNK => {
            let run = contents::Run {
                logical: 0,
                physical: inode.at,
                count: inode.size.div_ceil(BLOCK),
            };
            details.size = inode.size;
            details.flags = EXTENTS_FL
                | if inode.flags.has(Flags::INDEXED) {
                    INDEX_FL
                } else {
                    0
                };
            details.area = extents::build(&[run], space)?.bytes;
            details.blocks = run.count;
        }
        _ => {}
    }
    if inode.flags.has(Flags::XATTR_BLOCK) {
        details.attribute_block = inode.xattrs;
        details.blocks += 1;
    } else {
        details.attributes = attributes::in_inode(&attributes::as_stored(xattr::list(tree, inode)?));
    }
    Ok(details)
}

/// Bitmaps, descriptors, superblock.
fn write_groups(
    space: &mut Space<'_>,
    geometry: &Geometry,
    last_inode: u32,
    directories: &BTreeMap<u64, u64>,
    uuid: [u8; 16],
) -> Result<(), LayerError> {
    let mut all = Free::default();
    let mut descriptors = Vec::with_capacity(geometry.groups as usize * DESCRIPTOR_BYTES);
    for group in 0..geometry.groups {
        let mut blocks = space.used_map(group)?;
        let here = geometry.blocks_of(group);
        fill_from(&mut blocks, here);
        let used_inodes = u64::from(last_inode)
            .saturating_sub(group * geometry.group_inodes)
            .min(geometry.group_inodes);
        let mut inodes = [0u8; BLOCK as usize];
        for bit in 0..used_inodes {
            inodes[(bit / 8) as usize] |= 1 << (bit % 8);
        }
        fill_from(&mut inodes, geometry.group_inodes);
        let used: u64 = blocks.iter().map(|byte| u64::from(byte.count_ones())).sum();
        let free = Free {
            blocks: GROUP_BLOCKS - used,
            inodes: geometry.group_inodes - used_inodes,
            directories: directories.get(&group).copied().unwrap_or(0),
        };
        space.write(geometry.block_bitmap(group) * BLOCK, &blocks)?;
        space.write(geometry.inode_bitmap(group) * BLOCK, &inodes)?;
        descriptors.extend_from_slice(&geometry.descriptor(group, free));
        all.blocks += free.blocks;
        all.inodes += free.inodes;
    }
    space.write(BLOCK, &descriptors)?;
    space.write(1024, &geometry.superblock(all, uuid))?;
    Ok(())
}

/// Sets all bits from `first` on: what they would stand for does not exist.
fn fill_from(bits: &mut [u8], first: u64) {
    for bit in first..bits.len() as u64 * 8 {
        bits[(bit / 8) as usize] |= 1 << (bit % 8);
    }
}

/// What does not fit; whoever walks the inodes knows its name.
fn unrepresentable(what: String) -> LayerError {
    LayerError::unnamed(NAME, what)
}
