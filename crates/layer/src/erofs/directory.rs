//! Directories: blocks of entries, each followed by its names, all in the order of names.
//! Source: Documentation/filesystems/erofs.rst, "Directories"; `struct erofs_dirent` of fs/erofs/erofs_fs.h.

use std::io;

use crate::{
    LayerError,
    space::BLOCK,
    tree::{
        Tree,
        node::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG},
    },
};

/// Bytes of an entry without its name.
const ENTRY: usize = 12;

/// A name, and whom it stands for.
#[derive(Debug, Clone, Copy)]
enum Child {
    /// `.`
    Own,
    /// `..`
    Parent,
    /// The name of that number.
    Dentry(u32),
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
    pub(super) fn of(tree: &mut Tree, record: u32) -> io::Result<Self> {
        let mut children = vec![(b".".to_vec(), Child::Own), (b"..".to_vec(), Child::Parent)];
        let mut subdirectories = 0;
        let mut names = tree.names(record)?;
        while let Some((number, dentry)) = names.next(tree)? {
            if tree.inodes.get(dentry.inode)?.is_dir() {
                subdirectories += 1;
            }
            children.push((tree.name(&dentry)?, Child::Dentry(number)));
        }
        children.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut blocks = vec![0];
        let mut filled = 0;
        for (name, _) in &children {
            let needed = ENTRY + name.len();
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
            children: children.into_iter().map(|(_, child)| child).collect(),
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
                let (name, number, kind) = match child {
                    Child::Own => (b".".to_vec(), own.number, S_IFDIR),
                    Child::Parent => (b"..".to_vec(), parent, S_IFDIR),
                    Child::Dentry(dentry) => {
                        let dentry = tree.dentry(*dentry)?;
                        let inode = tree.inodes.get(dentry.inode)?;
                        (tree.name(&dentry)?, inode.number, inode.kind())
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

fn file_type(kind: u16) -> u8 {
    match kind {
        S_IFREG => 1,
        S_IFDIR => 2,
        S_IFCHR => 3,
        S_IFBLK => 4,
        S_IFIFO => 5,
        S_IFLNK => 7,
        _ => 0,
    }
}
