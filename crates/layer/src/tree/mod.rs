//! The tree of names that an archive describes, in bounded memory.
//!
//! Inodes and names are records; names, link targets, attributes and block maps are text. A name that comes again keeps its
//! place in its directory and gets another inode.

mod index;
pub(crate) mod node;
mod resolve;

use std::io;

use self::{
    index::Index,
    node::{DENTRY_BYTES, INODE_BYTES, S_IFDIR},
};
pub(crate) use self::{
    node::{Dentry, Flags, Inode},
    resolve::{Missing, Target},
};
use crate::{LayerError, error::Show, records::Records, spool::Spool};

/// The root directory's number.
pub(crate) const ROOT: u32 = 0;

/// Memory of each part, in bytes; together well below what a conversion may take.
const INODE_MEMORY: usize = 4 << 20;
const DENTRY_MEMORY: usize = 3 << 20;
const TEXT_MEMORY: usize = 3 << 20;
const INDEX_MEMORY: usize = 2 << 20;

/// Files and their names.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The files.
    pub(crate) inodes: Records<Inode, INODE_BYTES>,
    dentries: Records<Dentry, DENTRY_BYTES>,
    /// Names, targets, attributes, maps.
    pub(crate) text: Spool,
    index: Index,
}

impl Tree {
    /// A root directory and nothing else.
    pub(crate) fn new() -> io::Result<Self> {
        let mut tree = Self {
            inodes: Records::new(INODE_MEMORY),
            dentries: Records::new(DENTRY_MEMORY),
            text: Spool::new(TEXT_MEMORY),
            index: Index::new(INDEX_MEMORY),
        };
        tree.inodes.push(&implicit_directory(ROOT))?;
        Ok(tree)
    }

    /// What a directory has under a name: the name's number and the inode's.
    pub(crate) fn lookup(&mut self, parent: u32, name: &[u8]) -> io::Result<Option<(u32, u32)>> {
        let hash = self.index.hash(parent, name);
        let mut after = None;
        let mut buffer = [0; 255];
        while let Some((candidate, number)) = self.index.candidate(hash, after)? {
            let dentry = self.dentries.get(number)?;
            if dentry.hash == hash && dentry.parent == parent && usize::from(dentry.name_length) == name.len()
            {
                let there = &mut buffer[..name.len()];
                self.text.read(dentry.name_at, there)?;
                if there == name {
                    return Ok(Some((number, dentry.inode)));
                }
            }
            after = Some(candidate);
        }
        Ok(None)
    }

    /// Adds a name (of 1 to 255 bytes) that is not there yet.
    pub(crate) fn add_name(&mut self, parent: u32, name: &[u8], inode: u32) -> io::Result<u32> {
        let mut directory = self.inodes.get(parent)?;
        let hash = self.index.hash(parent, name);
        let number = self.dentries.push(&Dentry {
            parent,
            inode,
            next: directory.newest(),
            name_length: name.len() as u8,
            name_at: self.text.append(name)?,
            hash,
        })?;
        directory.set_newest(number + 1);
        self.inodes.set(parent, &directory)?;
        if self.index.is_full() {
            self.index.clear();
            for number in 0..number {
                let dentry = self.dentries.get(number)?;
                self.index.insert(dentry.hash, number)?;
            }
        }
        self.index.insert(hash, number)?;
        Ok(number)
    }

    /// Lets a name stand for another inode.
    pub(crate) fn rename_to(&mut self, dentry: u32, inode: u32) -> io::Result<()> {
        let mut record = self.dentries.get(dentry)?;
        record.inode = inode;
        self.dentries.set(dentry, &record)
    }

    /// The names of a directory, the newest first.
    pub(crate) fn names(&mut self, directory: u32) -> io::Result<Names> {
        Ok(Names {
            next: self.inodes.get(directory)?.newest(),
        })
    }

    /// A name's bytes.
    pub(crate) fn name(&mut self, dentry: &Dentry) -> io::Result<Vec<u8>> {
        let mut name = vec![0; usize::from(dentry.name_length)];
        self.text.read(dentry.name_at, &mut name)?;
        Ok(name)
    }

    /// A symbolic link's target.
    pub(crate) fn target(&mut self, link: &Inode) -> io::Result<Vec<u8>> {
        let mut target = vec![0; link.size as usize];
        self.text.read(link.at, &mut target)?;
        Ok(target)
    }

    /// A name's record.
    pub(crate) fn dentry(&mut self, number: u32) -> io::Result<Dentry> {
        self.dentries.get(number)
    }

    /// Text of a length that is kept before it.
    pub(crate) fn append_counted(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.text.append(&(bytes.len() as u32).to_le_bytes())?;
        self.text.append(bytes)?;
        Ok(at)
    }

    /// What [`Tree::append_counted`] put there.
    pub(crate) fn read_counted(&mut self, at: u64) -> io::Result<Vec<u8>> {
        let length = u32::from_le_bytes(self.text.read_array(at)?);
        let mut bytes = vec![0; length as usize];
        self.text.read(at + 4, &mut bytes)?;
        Ok(bytes)
    }

    /// An error about an inode, with one of its names. All names are looked at: it happens once.
    pub(crate) fn named(&mut self, inode: u32, error: LayerError) -> LayerError {
        match error {
            LayerError::Unrepresentable { filesystem, what, .. } => match self.path_of(inode) {
                Ok(path) => LayerError::Unrepresentable {
                    path: Show::new(&path),
                    filesystem,
                    what,
                },
                Err(source) => source.into(),
            },
            other => other,
        }
    }

    /// One of an inode's paths.
    fn path_of(&mut self, inode: u32) -> io::Result<Vec<u8>> {
        let mut path = Vec::new();
        let mut inode = inode;
        while inode != ROOT {
            let mut number = self.dentries.count();
            let dentry = loop {
                let Some(next) = number.checked_sub(1) else {
                    return Ok(path);
                };
                number = next;
                let dentry = self.dentries.get(number)?;
                if dentry.inode == inode {
                    break dentry;
                }
            };
            path = [b"/", &self.name(&dentry)?[..], &path].concat();
            inode = dentry.parent;
        }
        Ok(path)
    }

    /// A new directory in `parent` that no entry describes (yet). What has the name already is no directory and holds no
    /// data.
    pub(crate) fn add_implicit_directory(&mut self, parent: u32, name: &[u8]) -> io::Result<u32> {
        let inode = self.inodes.push(&implicit_directory(parent))?;
        match self.lookup(parent, name)? {
            Some((dentry, old)) => {
                let mut replaced = self.inodes.get(old)?;
                replaced.links = replaced.links.saturating_sub(1);
                self.inodes.set(old, &replaced)?;
                self.rename_to(dentry, inode)?;
            }
            None => {
                self.add_name(parent, name, inode)?;
            }
        }
        Ok(inode)
    }
}

/// Names of one directory. They are sorted in memory, at 12 bytes each: this bounds it.
const DIRECTORY_NAMES: usize = 2_000_000;

/// Refuses a directory with too many names to sort.
pub(crate) fn check_count(names: usize, filesystem: &'static str) -> Result<(), LayerError> {
    if names > DIRECTORY_NAMES {
        return Err(LayerError::unnamed(
            filesystem,
            format!("it has more than {DIRECTORY_NAMES} names"),
        ));
    }
    Ok(())
}

/// A directory as it is where the archive does not describe it.
fn implicit_directory(parent: u32) -> Inode {
    Inode {
        mode: S_IFDIR | 0o755,
        flags: Flags(Flags::IMPLICIT),
        extra: u64::from(parent) << 32,
        links: 1,
        ..Inode::default()
    }
}

/// A walk over a directory's names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    next: u32,
}

impl Names {
    /// The next name's number and record.
    pub(crate) fn next(&mut self, tree: &mut Tree) -> io::Result<Option<(u32, Dentry)>> {
        let Some(number) = self.next.checked_sub(1) else {
            return Ok(None);
        };
        let dentry = tree.dentries.get(number)?;
        self.next = dentry.next;
        Ok(Some((number, dentry)))
    }
}
