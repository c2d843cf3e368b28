//! The superblock. Source: `struct erofs_super_block` of fs/erofs/erofs_fs.h.

use std::io;

use sha2::{Digest, Sha256};

use crate::{
    space::{BLOCK, Space},
    uuid,
};

/// Where it is, in bytes.
pub(super) const OFFSET: u64 = 1024;
/// Its bytes.
const SIZE: usize = 128;
const MAGIC: u32 = 0xE0F5_E1E2;
/// Sparse files are in chunks.
const CHUNKED_FILE: u32 = 0x4;

/// Its bytes, for metadata from block `meta` to the end, and `inodes` of them.
pub(super) fn to_bytes(space: &Space<'_>, inodes: u64, blocks: u64, meta: u64) -> io::Result<[u8; SIZE]> {
    let mut bytes = [0; SIZE];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &MAGIC.to_le_bytes());
    put(12, &[BLOCK.ilog2() as u8]);
    // The root's inode is the first of the metadata: number 0.
    put(16, &inodes.to_le_bytes());
    put(36, &(blocks as u32).to_le_bytes());
    put(40, &(meta as u32).to_le_bytes());
    put(48, &uuid_of(space, blocks, meta)?);
    put(80, &CHUNKED_FILE.to_le_bytes());
    Ok(bytes)
}

/// A UUID that is this layer's alone: it is made from the metadata.
fn uuid_of(space: &Space<'_>, blocks: u64, meta: u64) -> io::Result<[u8; 16]> {
    let mut digest = Sha256::new();
    let mut piece = vec![0; 256 * 1024];
    let (mut position, end) = (meta * BLOCK, blocks * BLOCK);
    while position < end {
        let length = space.read_some(position, &mut piece)?;
        if length == 0 {
            break;
        }
        digest.update(&piece[..length]);
        position += length as u64;
    }
    Ok(uuid::of(digest))
}
