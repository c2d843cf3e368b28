//! Extended attributes: in the inode where they fit, else in a block that inodes with the same ones share.
//! Source: Documentation/filesystems/ext4/attributes.rst.

use std::collections::HashMap;

use crate::{
    LayerError,
    error::Show,
    space::{BLOCK, Space},
    tree::Inode,
    xattr::{Attribute, Namespace},
};

use super::NAME;

/// Bytes after the inode's own fields, of 256.
pub(super) const IN_INODE: usize = 96;
const MAGIC: u32 = 0xEA02_0000;
/// Bytes of a block's header, of which the magic is all that an inode has.
const BLOCK_HEADER: usize = 32;
const INODE_HEADER: usize = 4;
/// Bytes of an entry before its name.
const ENTRY: usize = 16;
/// Zeros after the last entry.
const END: usize = 4;
/// Inodes that may share a block (EXT4_XATTR_REFCOUNT_MAX).
const SHARED: u32 = 1024;
/// Blocks whose sharing is still open.
const OPEN: usize = 512;

/// The blocks that can still be shared, by what is in them.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    open: HashMap<(u64, bool), (u64, u32)>,
}

impl Blocks {
    /// The block for an inode's attributes, written if no other inode has the same.
    pub(super) fn obtain(
        &mut self,
        space: &mut Space<'_>,
        inode: &Inode,
        opaque: bool,
        attributes: &[Attribute],
    ) -> Result<u64, LayerError> {
        let key = (inode.xattrs, opaque);
        if let Some((block, count)) = self.open.get_mut(&key)
            && *count < SHARED
        {
            *count += 1;
            return Ok(*block);
        }
        if self.open.len() >= OPEN || self.open.contains_key(&key) {
            self.close(space)?;
        }
        let mut bytes = vec![0; BLOCK as usize];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
        bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
        let hashes = fill(&mut bytes, BLOCK_HEADER, 0, attributes);
        let hash = hashes
            .iter()
            .fold(0u32, |hash, entry| hash.rotate_left(16) ^ entry);
        bytes[12..16].copy_from_slice(&hash.to_le_bytes());
        let block = space.append(&bytes)?;
        self.open.insert(key, (block, 1));
        Ok(block)
    }

    /// Writes how many share each block.
    pub(super) fn close(&mut self, space: &Space<'_>) -> Result<(), LayerError> {
        for (block, count) in self.open.drain().map(|(_, shared)| shared) {
            space.write(block * BLOCK + 4, &count.to_le_bytes())?;
        }
        Ok(())
    }
}

/// Whether they fit into an inode; an error if they do not fit into a block either.
pub(super) fn fit_in_inode(attributes: &[Attribute]) -> Result<bool, LayerError> {
    let bytes: usize = attributes.iter().map(entry_and_value).sum::<usize>() + END;
    let most = BLOCK as usize - BLOCK_HEADER;
    if bytes > most {
        let largest = attributes.iter().max_by_key(|attribute| attribute.value.len());
        return Err(LayerError::unnamed(
            NAME,
            format!(
                "its extended attributes take {bytes} bytes, and a block has {most}; the largest is {}",
                largest.map_or_else(String::new, |largest| Show::new(&largest.name).to_string())
            ),
        ));
    }
    Ok(bytes + INODE_HEADER <= IN_INODE)
}

/// The attributes as they are in an inode.
pub(super) fn in_inode(attributes: &[Attribute]) -> [u8; IN_INODE] {
    let mut bytes = [0; IN_INODE];
    if !attributes.is_empty() {
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        fill(&mut bytes, INODE_HEADER, INODE_HEADER, attributes);
    }
    bytes
}

/// Attributes as ext4 has them: access lists in its own shorter form.
pub(super) fn as_stored(attributes: Vec<Attribute>) -> Vec<Attribute> {
    attributes
        .into_iter()
        .map(|mut attribute| {
            if matches!(attribute.space, Namespace::AclAccess | Namespace::AclDefault)
                && let Some(short) = short_acl(&attribute.value)
            {
                attribute.value = short;
            }
            attribute
        })
        .collect()
}

/// Entries from `at` on, values from the end; offsets count from `origin`. Gives the entries' hashes.
fn fill(bytes: &mut [u8], at: usize, origin: usize, attributes: &[Attribute]) -> Vec<u32> {
    let mut at = at;
    let mut end = bytes.len();
    let mut hashes = Vec::with_capacity(attributes.len());
    for attribute in attributes {
        end -= padded(attribute.value.len());
        bytes[end..end + attribute.value.len()].copy_from_slice(&attribute.value);
        let hash = hash(attribute);
        let entry = &mut bytes[at..at + ENTRY + attribute.name.len()];
        entry[0] = attribute.name.len() as u8;
        entry[1] = attribute.space as u8;
        let offset = if attribute.value.is_empty() {
            0
        } else {
            end - origin
        };
        entry[2..4].copy_from_slice(&(offset as u16).to_le_bytes());
        entry[8..12].copy_from_slice(&(attribute.value.len() as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&hash.to_le_bytes());
        entry[ENTRY..].copy_from_slice(&attribute.name);
        at += padded(ENTRY + attribute.name.len());
        hashes.push(hash);
    }
    hashes
}

/// The hash of a name and its value, as fs/ext4/xattr.c has it.
fn hash(attribute: &Attribute) -> u32 {
    let name = attribute
        .name
        .iter()
        .fold(0u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
    attribute.value.chunks(4).fold(name, |hash, bytes| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        hash.rotate_left(16) ^ u32::from_le_bytes(word)
    })
}

/// An access list of version 2 (what getxattr gives) as ext4's version 1, which leaves out ids that mean nothing.
/// `None` for what is no such list: it is kept as it is.
fn short_acl(value: &[u8]) -> Option<Vec<u8>> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    let entries = value.strip_prefix(&2u32.to_le_bytes())?;
    let mut short = 1u32.to_le_bytes().to_vec();
    for entry in entries.chunks(8) {
        let [tag_low, tag_high, _, _, _, _, _, _] = *entry else {
            return None;
        };
        let tag = u16::from_le_bytes([tag_low, tag_high]);
        let kept = if matches!(tag, USER | GROUP) { 8 } else { 4 };
        short.extend_from_slice(&entry[..kept]);
    }
    Some(short)
}

fn entry_and_value(attribute: &Attribute) -> usize {
    padded(ENTRY + attribute.name.len()) + padded(attribute.value.len())
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_list_keeps_only_the_ids_that_mean_something() {
        let mut long = 2u32.to_le_bytes().to_vec();
        for (tag, id) in [(0x01u16, u32::MAX), (0x02, 1000), (0x20, u32::MAX)] {
            long.extend_from_slice(&tag.to_le_bytes());
            long.extend_from_slice(&[6, 0]);
            long.extend_from_slice(&id.to_le_bytes());
        }
        let short = short_acl(&long).expect("a list");
        assert_eq!(short.len(), 4 + 4 + 8 + 4);
        assert_eq!(short[8..16], [2, 0, 6, 0, 0xE8, 3, 0, 0]);
        assert_eq!(short_acl(&long[..long.len() - 1]), None);
        assert_eq!(short_acl(b""), None);
    }
}
