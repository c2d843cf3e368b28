//! EROFS, uncompressed.
//!
//! Blocks in order: superblock, contents as they came, blocks of large directories and long link targets, and the
//! metadata: inodes, each with its attributes and what fits behind it (the target of a link, a small directory, the map
//! of a sparse file).
//!
//! Source: Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of the kernel. `fsck.erofs` agrees with every
//! output.

mod directory;
mod inode;
mod superblock;

use self::{
    directory::Listing,
    inode::{Data, Plan},
};
use crate::{
    LayerError,
    assemble::Assembly,
    contents,
    space::{BLOCK, Bounds, Space},
    tree::{
        Flags, Inode, ROOT, Tree,
        node::{S_IFDIR, S_IFLNK, S_IFREG},
    },
    xattr,
};

/// The file system's name in messages.
const NAME: &str = "EROFS";
/// Block numbers have 32 bits, and one is no block.
const MOST_BLOCKS: u64 = 0xFFFF_FFFF;
/// An inode's number is its place among slots of this many bytes.
const SLOT: u64 = 32;
/// Chunks that a sparse file has at most; each takes 8 bytes of its map.
const MOST_CHUNKS: u64 = 1 << 17;
/// Bytes of metadata that are written at once.
const PIECE: usize = 256 * 1024;
/// What a name of the root directory's own may be below: its number has 16 bits in the superblock.
const _: () = assert!(ROOT == 0, "the root's inode is the first, and its number 0");

/// Blocks for contents.
pub(crate) fn bounds() -> Bounds {
    Bounds {
        filesystem: NAME,
        first: 1,
        limit: MOST_BLOCKS,
    }
}

/// Blocks of a sparse file's chunks: so many that its map stays small.
pub(crate) fn sparse_unit(size: u64) -> u64 {
    size.div_ceil(BLOCK).div_ceil(MOST_CHUNKS).next_power_of_two()
}

/// Writes all that is not content. Gives the file system's size in blocks.
pub(crate) fn finish(assembly: &mut Assembly<'_>) -> Result<u64, LayerError> {
    let Assembly { tree, space, .. } = assembly;
    let inodes = place(tree)?;
    let meta = write_blocks(tree, space)?;
    write_inodes(tree, space, meta)?;
    let blocks = space.end();
    space.write(
        superblock::OFFSET,
        &superblock::to_bytes(space, inodes, blocks, meta)?,
    )?;
    Ok(blocks)
}

/// Where an inode's number is kept: `number` has 32 bits, enough for 128 GiB of metadata.
fn set_slot(inode: &mut Inode, slot: u64) -> Result<(), LayerError> {
    inode.number = u32::try_from(slot).map_err(|_| LayerError::TooLarge {
        filesystem: NAME,
        needed: slot * SLOT / BLOCK,
        limit: u64::from(u32::MAX) * SLOT / BLOCK,
    })?;
    Ok(())
}

/// Gives every inode its place in the metadata. Gives how many there are.
fn place(tree: &mut Tree) -> Result<u64, LayerError> {
    let mut next = 0;
    let mut count = 0;
    for record in 0..tree.inodes.count() {
        let mut inode = tree.inodes.get(record)?;
        if inode.links == 0 {
            continue;
        }
        count += 1;
        if inode.is_dir() {
            let listing = Listing::of(tree, record).map_err(|error| tree.named(record, error))?;
            inode.size = listing.bytes();
            inode.links = 2 + listing.subdirectories();
        }
        let plan = plan(tree, &inode).map_err(|error| tree.named(record, error))?;
        let start = plan.start_after(next);
        set_slot(&mut inode, start / SLOT)?;
        next = start + plan.bytes();
        tree.inodes.set(record, &inode)?;
    }
    Ok(count)
}

/// What an inode takes; a directory's size is known.
fn plan(tree: &mut Tree, inode: &Inode) -> Result<Plan, LayerError> {
    let attributes = xattr::list(tree, inode)?;
    let data = match inode.kind() {
        S_IFREG if inode.flags.has(Flags::MAPPED) => {
            let unit = sparse_unit(inode.size);
            let chunks = inode.size.div_ceil(unit * BLOCK);
            Data::Chunks { chunks, unit }
        }
        S_IFLNK | S_IFDIR => Data::Tail(inode.size),
        _ => Data::Elsewhere,
    };
    Plan::new(&attributes, data)
}

/// Writes what does not fit behind its inode; gives the metadata's first block. A directory or link then has its blocks
/// in `at`, and the flag `ROOTED`.
fn write_blocks(tree: &mut Tree, space: &mut Space<'_>) -> Result<u64, LayerError> {
    for record in 0..tree.inodes.count() {
        let mut inode = tree.inodes.get(record)?;
        if inode.links == 0 || !(inode.is_dir() || inode.kind() == S_IFLNK) {
            continue;
        }
        let plan = plan(tree, &inode)?;
        if !plan.is_inline() {
            let at = if inode.is_dir() {
                let mut listing = Listing::of(tree, record)?;
                let first = space.end();
                listing.write(tree, &mut |block| space.append(block).map(drop))?;
                first
            } else {
                let target = tree.target(&inode)?;
                space.append(&target)?
            };
            inode.at = at;
            inode.flags.set(Flags::ROOTED);
        }
        tree.inodes.set(record, &inode)?;
    }
    Ok(space.end())
}

fn write_inodes(tree: &mut Tree, space: &mut Space<'_>, meta: u64) -> Result<(), LayerError> {
    let mut piece = Vec::with_capacity(PIECE);
    let mut written = 0;
    let mut serial = 0;
    for record in 0..tree.inodes.count() {
        let inode = tree.inodes.get(record)?;
        if inode.links == 0 {
            continue;
        }
        serial += 1;
        let start = u64::from(inode.number) * SLOT;
        piece.resize((start - written) as usize, 0);
        let plan = plan(tree, &inode)?;
        let attributes = xattr::list(tree, &inode)?;
        inode::head(&mut piece, &inode, &plan, serial).map_err(|error| tree.named(record, error))?;
        inode::attributes(&mut piece, &attributes);
        match inode.kind() {
            S_IFREG if inode.flags.has(Flags::MAPPED) => {
                let runs = contents::runs(tree, &inode)?;
                inode::chunk_map(&mut piece, &runs, &plan);
            }
            S_IFLNK if plan.is_inline() => piece.extend_from_slice(&tree.target(&inode)?),
            _ if inode.is_dir() && plan.is_inline() => {
                let mut listing = Listing::of(tree, record)?;
                listing.write(tree, &mut |block| {
                    piece.extend_from_slice(block);
                    Ok(())
                })?;
            }
            _ => {}
        }
        if piece.len() >= PIECE {
            written += flush(&mut piece, space, meta * BLOCK + written)?;
        }
    }
    written += flush(&mut piece, space, meta * BLOCK + written)?;
    space.allocate(written.div_ceil(BLOCK)).map(drop)
}

fn flush(piece: &mut Vec<u8>, space: &Space<'_>, position: u64) -> Result<u64, LayerError> {
    space.write(position, piece)?;
    let written = piece.len() as u64;
    piece.clear();
    Ok(written)
}

/// What does not fit; whoever walks the inodes knows its name.
fn unrepresentable(what: String) -> LayerError {
    LayerError::unnamed(NAME, what)
}
