//! Inodes: 64 bytes, attributes, and what fits behind them.
//! Source: `struct erofs_inode_extended`, `erofs_xattr_ibody_header`, `erofs_xattr_entry` and
//! `erofs_inode_chunk_index` of fs/erofs/erofs_fs.h.

use super::{NAME, SLOT, unrepresentable};
use crate::{
    LayerError,
    contents::Run,
    space::BLOCK,
    tree::{
        Inode,
        node::{S_IFBLK, S_IFCHR},
    },
    xattr::Attribute,
};

/// Bytes of an extended inode.
const INODE: u64 = 64;
/// Bytes before the attributes, and of an attribute before its name.
const ATTRIBUTES_HEAD: u64 = 12;
const ATTRIBUTE_HEAD: u64 = 4;
/// Bytes of a chunk's index.
const CHUNK: u64 = 8;
/// Layouts of data (`i_format`, bits 1 to 3): blocks in a row; those with the end behind the inode; chunks.
const PLAIN: u16 = 0;
const INLINE: u16 = 2;
const CHUNKS: u16 = 4;
/// An extended inode (`i_format`, bit 0).
const EXTENDED: u16 = 1;
/// Chunks have an index of 8 bytes each.
const CHUNK_INDEXES: u32 = 0x20;
/// A chunk that is a hole.
const HOLE: u32 = u32::MAX;

/// What is behind an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// Nothing: contents are in blocks of their own, or there are none.
    Elsewhere,
    /// So many bytes, if they fit into the inode's block.
    Tail(u64),
    /// A map of chunks of `unit` blocks.
    Chunks {
        /// How many.
        chunks: u64,
        /// Blocks of each.
        unit: u64,
    },
}

/// What an inode takes in the metadata, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    attributes: u64,
    data: Data,
}

impl Plan {
    /// An error if the attributes are too many.
    pub(super) fn new(attributes: &[Attribute], data: Data) -> Result<Self, LayerError> {
        let entries: u64 = attributes.iter().map(attribute_bytes).sum();
        let bytes = if attributes.is_empty() {
            0
        } else {
            ATTRIBUTES_HEAD + entries
        };
        let largest = attributes.iter().map(|attribute| attribute.value.len()).max();
        // The count of 4-byte pieces, and a value's length, have 16 bits.
        if bytes > 4 * 0xFFFF || largest > Some(0xFFFF) {
            return Err(unrepresentable(format!(
                "its extended attributes take {bytes} bytes; {NAME} has room for 262140, 65535 of them one value's"
            )));
        }
        Ok(Self {
            attributes: bytes,
            data,
        })
    }

    /// Bytes of the inode and its attributes.
    fn head(&self) -> u64 {
        INODE + self.attributes
    }

    /// Whether the data is behind the inode. A file without data has nowhere else to have it.
    pub(super) fn is_inline(&self) -> bool {
        matches!(self.data, Data::Tail(bytes) if bytes > 0 && self.head() + bytes <= BLOCK)
    }

    /// All its bytes in the metadata.
    pub(super) fn bytes(&self) -> u64 {
        match self.data {
            Data::Tail(bytes) if self.is_inline() => self.head() + bytes,
            Data::Chunks { chunks, .. } => self.head().next_multiple_of(CHUNK) + chunks * CHUNK,
            _ => self.head(),
        }
    }

    /// The first place for it from byte `next` on: an inode, and one with its data behind it, is in one block.
    pub(super) fn start_after(&self, next: u64) -> u64 {
        let start = next.next_multiple_of(SLOT);
        let together = if self.is_inline() { self.bytes() } else { INODE };
        if start % BLOCK + together > BLOCK {
            start.next_multiple_of(BLOCK)
        } else {
            start
        }
    }
}

/// The inode's own bytes. `serial` is what stat shows as its number on 32-bit systems.
pub(super) fn head(out: &mut Vec<u8>, inode: &Inode, plan: &Plan, serial: u32) -> Result<(), LayerError> {
    let layout = match plan.data {
        Data::Chunks { .. } => CHUNKS,
        _ if plan.is_inline() => INLINE,
        _ => PLAIN,
    };
    let union = match (plan.data, inode.kind()) {
        (Data::Chunks { unit, .. }, _) => CHUNK_INDEXES | unit.ilog2(),
        (_, S_IFCHR | S_IFBLK) => {
            let (major, minor) = inode.device();
            if major >= 1 << 12 || minor >= 1 << 20 {
                return Err(unrepresentable(format!(
                    "device {major}:{minor}; major numbers end at 4095, minor ones at 1048575"
                )));
            }
            minor & 0xFF | major << 8 | (minor & !0xFF) << 12
        }
        _ if plan.is_inline() => 0,
        // Blocks are numbered with 32 bits: the space has no more.
        _ => inode.at as u32,
    };
    let pieces = if plan.attributes == 0 {
        0
    } else {
        (plan.attributes - ATTRIBUTES_HEAD) / 4 + 1
    };
    let mut bytes = [0; INODE as usize];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &(EXTENDED | layout << 1).to_le_bytes());
    put(2, &(pieces as u16).to_le_bytes());
    put(4, &inode.mode.to_le_bytes());
    put(8, &inode.size.to_le_bytes());
    put(16, &union.to_le_bytes());
    put(20, &serial.to_le_bytes());
    put(24, &inode.uid.to_le_bytes());
    put(28, &inode.gid.to_le_bytes());
    put(32, &inode.mtime.seconds.to_le_bytes());
    put(40, &inode.mtime.nanoseconds.to_le_bytes());
    put(44, &inode.links.to_le_bytes());
    out.extend_from_slice(&bytes);
    Ok(())
}

/// The attributes behind it.
pub(super) fn attributes(out: &mut Vec<u8>, attributes: &[Attribute]) {
    if attributes.is_empty() {
        return;
    }
    // No attribute is shared, and there is no filter of names.
    out.extend_from_slice(&[0; ATTRIBUTES_HEAD as usize]);
    for attribute in attributes {
        out.push(attribute.name.len() as u8);
        out.push(attribute.space as u8);
        out.extend_from_slice(&(attribute.value.len() as u16).to_le_bytes());
        out.extend_from_slice(&attribute.name);
        out.extend_from_slice(&attribute.value);
        let used = attribute.name.len() + attribute.value.len();
        out.resize(out.len() + used.next_multiple_of(4) - used, 0);
    }
}

/// The map of a sparse file.
pub(super) fn chunk_map(out: &mut Vec<u8>, runs: &[Run], plan: &Plan) {
    let Data::Chunks { chunks, unit } = plan.data else {
        return;
    };
    let head = plan.head();
    out.resize(out.len() + (head.next_multiple_of(CHUNK) - head) as usize, 0);
    let mut runs = runs.iter().peekable();
    for chunk in 0..chunks {
        let logical = chunk * unit;
        while runs.next_if(|run| run.logical + run.count <= logical).is_some() {}
        let block = match runs.peek() {
            Some(run) if run.logical <= logical => (run.physical + logical - run.logical) as u32,
            _ => HOLE,
        };
        out.extend_from_slice(&[0; 4]); // no advice, the first device
        out.extend_from_slice(&block.to_le_bytes());
    }
}

fn attribute_bytes(attribute: &Attribute) -> u64 {
    ATTRIBUTE_HEAD + ((attribute.name.len() + attribute.value.len()) as u64).next_multiple_of(4)
}
