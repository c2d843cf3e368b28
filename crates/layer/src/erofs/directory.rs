//! Directories: blocks of entries, each followed by its names, all in the order of names.
//! Source: Documentation/filesystems/erofs.rst, "Directories"; `struct erofs_dirent` of fs/erofs/erofs_fs.h.

use std::io;

use super::NAME;
use crate::{
    LayerError,
    space::BLOCK,
    tree::{
        Tree, check_count,
        node::{S_IFDIR, file_type},
    },
};

/// Bytes of an entry without its name.
const ENTRY: usize = 12;

/// The directory's own names, in the place of a name's number.
const OWN: u32 = u32::MAX;
const PARENT: u32 = u32::MAX - 1;

/// A name: its first 8 bytes, which nearly always tell it from the others, and its number. 12 bytes, whatever the name
/// is: a directory may have a million.
#[derive(Debug, Clone, Copy)]
struct Child {
    start: [u32; 2],
    dentry: u32,
}

impl Child {
    fn new(name: &[u8], dentry: u32) -> Self {
        let mut start = [0; 8];
        let length = name.len().min(8);
        start[..length].copy_from_slice(&name[..length]);
        let [a, b, c, d, e, f, g, h] = start;
        Self {
            start: [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])],
            dentry,
        }
    }

    fn name(&self, tree: &mut Tree) -> io::Result<Vec<u8>> {
        match self.dentry {
            OWN => Ok(b".".to_vec()),
            PARENT => Ok(b"..".to_vec()),
            number => {
                let dentry = tree.dentry(number)?;
                tree.name(&dentry)
            }
        }
    }
}

/// A directory's names in their order.
#[derive(Debug)]
pub(super) struct Listing {
    record: u32,
    children: Vec<Child>,
    /// How many of them each block has.
    blocks: Vec<u32>,
    last_bytes: u64,
    subdirectories: u32,
}

impl Listing {
    /// Sorts a directory's names and packs them into blocks.
    pub(super) fn of(tree: &mut Tree, record: u32) -> Result<Self, LayerError> {
        let mut children = vec![Child::new(b".", OWN), Child::new(b"..", PARENT)];
        let mut subdirectories = 0;
        let mut names = tree.names(record)?;
        while let Some((number, dentry)) = names.next(tree)? {
            if tree.inodes.get(dentry.inode)?.is_dir() {
                subdirectories += 1;
            }
            children.push(Child::new(&tree.name(&dentry)?, number));
            check_count(children.len(), NAME)?;
        }
        let mut failed = None;
        children.sort_unstable_by(|a, b| {
            a.start.cmp(&b.start).then_with(|| {
                let mut name = |child: &Child| child.name(tree).map_err(|error| failed = Some(error));
                name(a).unwrap_or_default().cmp(&name(b).unwrap_or_default())
            })
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        let mut blocks = vec![0];
        let mut filled = 0;
        for child in &children {
            let needed = ENTRY + child.name(tree)?.len();
            if filled + needed > BLOCK as usize {
                blocks.push(0);
                filled = 0;
            }
            filled += needed;
            if let Some(count) = blocks.last_mut() {
                *count += 1;
            }
        }
        Ok(Self {
            record,
            children,
            blocks,
            last_bytes: filled as u64,
            subdirectories,
        })
    }

    /// Its size: whole blocks, but for the last.
    pub(super) fn bytes(&self) -> u64 {
        (self.blocks.len() as u64 - 1) * BLOCK + self.last_bytes
    }

    /// Directories in it.
    pub(super) fn subdirectories(&self) -> u32 {
        self.subdirectories
    }

    /// Hands out its blocks; the last is as long as what is in it.
    pub(super) fn write(
        &mut self,
        tree: &mut Tree,
        out: &mut dyn FnMut(&[u8]) -> Result<(), LayerError>,
    ) -> Result<(), LayerError> {
        let own = tree.inodes.get(self.record)?;
        let parent = tree.inodes.get(own.parent())?.number;
        let mut children = self.children.iter();
        for (block, count) in self.blocks.iter().enumerate() {
            let mut entries = Vec::with_capacity(BLOCK as usize);
            let mut text = Vec::new();
            for child in children.by_ref().take(*count as usize) {
                let name = child.name(tree)?;
                let (number, kind) = match child.dentry {
                    OWN => (own.number, S_IFDIR),
                    PARENT => (parent, S_IFDIR),
                    dentry => {
                        let dentry = tree.dentry(dentry)?;
                        let inode = tree.inodes.get(dentry.inode)?;
                        (inode.number, inode.kind())
                    }
                };
                let name_at = *count as usize * ENTRY + text.len();
                entries.extend_from_slice(&u64::from(number).to_le_bytes());
                entries.extend_from_slice(&(name_at as u16).to_le_bytes());
                entries.extend_from_slice(&[file_type(kind), 0]);
                text.extend_from_slice(&name);
            }
            entries.append(&mut text);
            if block + 1 < self.blocks.len() {
                entries.resize(BLOCK as usize, 0);
            }
            out(&entries)?;
        }
        Ok(())
    }
}
