//! Directories: one block in the order of names, or blocks in the order of hashes with an index on top.
//! Source: Documentation/filesystems/ext4/directory.rst.

use crate::{
    LayerError,
    space::{BLOCK, Space},
    tree::{
        Inode, Tree, check_count,
        node::{S_IFDIR, file_type},
    },
};

use super::{NAME, hash};

const SIZE: usize = BLOCK as usize;
/// Bytes of an entry before its name.
const HEAD: usize = 8;
/// Bytes of `.` or `..`.
const DOT: usize = 12;
/// Where an index's entries start: in the root, and in a node.
const ROOT_ENTRIES: usize = 32;
const NODE_ENTRIES: usize = 8;
/// Bytes of an index entry.
const INDEX_ENTRY: usize = 8;
/// Half MD4. That names are unsigned bytes is said in the superblock.
const HASH_VERSION: u8 = 1;

/// A directory that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// Its first block; the others follow.
    pub(super) first: u64,
    /// How many.
    pub(super) blocks: u64,
    /// Directories in it.
    pub(super) subdirectories: u32,
    /// Whether it has an index.
    pub(super) indexed: bool,
}

/// A name that is to be written.
#[derive(Debug, Clone, Copy)]
struct Child {
    hash: (u32, u32),
    dentry: u32,
}

/// An index entry: from this hash on, this block.
#[derive(Debug, Clone, Copy)]
struct IndexEntry {
    hash: u32,
    block: u32,
}

/// Writes the directory of that number.
pub(super) fn write(tree: &mut Tree, space: &mut Space<'_>, number: u32) -> Result<Written, LayerError> {
    let directory = tree.inodes.get(number)?;
    let parent = tree.inodes.get(directory.parent())?.number;
    let mut children = Vec::new();
    let mut bytes = 2 * DOT;
    let mut subdirectories = 0;
    let mut names = tree.names(number)?;
    while let Some((dentry, record)) = names.next(tree)? {
        let name = tree.name(&record)?;
        if tree.inodes.get(record.inode)?.is_dir() {
            subdirectories += 1;
        }
        bytes += entry_bytes(name.len());
        children.push(Child {
            hash: hash::of_name(&name),
            dentry,
        });
        check_count(children.len(), NAME)?;
    }
    let mut writer = Writer {
        tree,
        space,
        block: vec![0; SIZE],
    };
    let first = writer.space.end();
    let indexed = bytes > SIZE;
    if indexed {
        children.sort_unstable_by_key(|child| (child.hash, child.dentry));
        writer.indexed(directory.number, parent, &children)?;
    } else {
        writer.linear(directory.number, parent, &children)?;
    }
    Ok(Written {
        first,
        blocks: space.end() - first,
        subdirectories,
        indexed,
    })
}

struct Writer<'a, 'f> {
    tree: &'a mut Tree,
    space: &'a mut Space<'f>,
    block: Vec<u8>,
}

impl Writer<'_, '_> {
    /// All in one block, by name.
    fn linear(&mut self, own: u32, parent: u32, children: &[Child]) -> Result<(), LayerError> {
        let mut entries = Vec::with_capacity(children.len());
        for child in children {
            entries.push(self.entry(child)?);
        }
        entries.sort();
        let dots = [
            (b".".to_vec(), own, file_type(S_IFDIR)),
            (b"..".to_vec(), parent, file_type(S_IFDIR)),
        ];
        let mut at = 0;
        let mut last = 0;
        for (name, inode, kind) in dots.iter().chain(&entries) {
            last = at;
            at += self.put(at, name, *inode, *kind);
        }
        self.stretch(last);
        self.flush().map(drop)
    }

    /// Leaves by hash, and the index: its root is the first block, its nodes come after the leaves.
    fn indexed(&mut self, own: u32, parent: u32, children: &[Child]) -> Result<(), LayerError> {
        let root = self.space.allocate(1)?;
        let mut entries = self.leaves(root, children)?;
        let mut levels = 0;
        if entries.len() > in_root() {
            levels = 1;
            entries = self.nodes(root, &entries)?;
        }
        if entries.len() > in_root() {
            return Err(LayerError::unnamed(
                NAME,
                format!(
                    "the index of {} names has {} nodes; there is room for {}",
                    children.len(),
                    entries.len(),
                    in_root()
                ),
            ));
        }
        self.block.fill(0);
        self.put(0, b".", own, file_type(S_IFDIR));
        self.put(DOT, b"..", parent, file_type(S_IFDIR));
        self.stretch(DOT);
        self.block[28] = HASH_VERSION;
        self.block[29] = 8; // bytes of this description
        self.block[30] = levels;
        self.put_index(ROOT_ENTRIES, &entries);
        self.space.write(root * BLOCK, &self.block)?;
        Ok(())
    }

    fn leaves(&mut self, root: u64, children: &[Child]) -> Result<Vec<IndexEntry>, LayerError> {
        let mut index = Vec::new();
        let mut at = 0;
        let mut last = 0;
        let mut previous = None;
        let mut first_hash = 0;
        self.block.fill(0);
        for child in children {
            let (name, inode, kind) = self.entry(child)?;
            if at + entry_bytes(name.len()) > SIZE {
                index.push((first_hash, self.close_leaf(root, last)?));
                at = 0;
            }
            if at == 0 {
                // The lowest bit says that names of this hash start in the leaf before.
                let continued = u32::from(previous == Some(child.hash.0));
                first_hash = child.hash.0 | continued;
            }
            previous = Some(child.hash.0);
            last = at;
            at += self.put(at, &name, inode, kind);
        }
        index.push((first_hash, self.close_leaf(root, last)?));
        let entry = |(hash, block)| IndexEntry { hash, block };
        Ok(index.into_iter().map(entry).collect())
    }

    fn close_leaf(&mut self, root: u64, last: usize) -> Result<u32, LayerError> {
        self.stretch(last);
        let physical = self.flush()?;
        self.block.fill(0);
        // A directory of 2³² blocks is far beyond what an index can hold.
        Ok((physical - root) as u32)
    }

    fn nodes(&mut self, root: u64, leaves: &[IndexEntry]) -> Result<Vec<IndexEntry>, LayerError> {
        let mut above = Vec::new();
        for entries in leaves.chunks(in_node()) {
            self.block.fill(0);
            // An entry without an inode covers all of it: to whoever knows no index, the block is empty.
            self.block[4..6].copy_from_slice(&(SIZE as u16).to_le_bytes());
            self.put_index(NODE_ENTRIES, entries);
            let physical = self.flush()?;
            above.push(IndexEntry {
                hash: entries[0].hash,
                block: (physical - root) as u32,
            });
        }
        Ok(above)
    }

    /// Limit, count, and the entries; the first one's hash is where these two are.
    fn put_index(&mut self, at: usize, entries: &[IndexEntry]) {
        let limit = ((SIZE - at) / INDEX_ENTRY) as u16;
        for (slot, entry) in self.block[at..].chunks_exact_mut(INDEX_ENTRY).zip(entries) {
            slot[0..4].copy_from_slice(&entry.hash.to_le_bytes());
            slot[4..8].copy_from_slice(&entry.block.to_le_bytes());
        }
        self.block[at..at + 2].copy_from_slice(&limit.to_le_bytes());
        self.block[at + 2..at + 4].copy_from_slice(&(entries.len() as u16).to_le_bytes());
    }

    fn flush(&mut self) -> Result<u64, LayerError> {
        self.space.append(&self.block)
    }

    fn entry(&mut self, child: &Child) -> Result<(Vec<u8>, u32, u8), LayerError> {
        let record = self.tree.dentry(child.dentry)?;
        let inode: Inode = self.tree.inodes.get(record.inode)?;
        Ok((self.tree.name(&record)?, inode.number, file_type(inode.kind())))
    }

    /// Writes an entry, and gives its length.
    fn put(&mut self, at: usize, name: &[u8], inode: u32, kind: u8) -> usize {
        let length = entry_bytes(name.len());
        let entry = &mut self.block[at..at + length];
        entry[0..4].copy_from_slice(&inode.to_le_bytes());
        entry[4..6].copy_from_slice(&(length as u16).to_le_bytes());
        entry[6] = name.len() as u8;
        entry[7] = kind;
        entry[HEAD..HEAD + name.len()].copy_from_slice(name);
        length
    }

    /// Lets the entry at `at` reach to the block's end.
    fn stretch(&mut self, at: usize) {
        self.block[at + 4..at + 6].copy_from_slice(&((SIZE - at) as u16).to_le_bytes());
    }
}

fn entry_bytes(name: usize) -> usize {
    (HEAD + name).next_multiple_of(4)
}

fn in_root() -> usize {
    (SIZE - ROOT_ENTRIES) / INDEX_ENTRY
}

fn in_node() -> usize {
    (SIZE - NODE_ENTRIES) / INDEX_ENTRY
}
