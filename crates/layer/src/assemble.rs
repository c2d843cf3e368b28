//! From entries to a tree: what replaces what, which link is which file, and what a whiteout becomes.
//!
//! | there is | comes | becomes |
//! |---|---|---|
//! | nothing | anything | it |
//! | a directory | a directory | the old one's names, the new one's owner, mode, time and attributes |
//! | a directory | anything else | that; the directory goes with all that is in it |
//! | no directory | anything | that |
//! | a directory | a whiteout of it | the directory, opaque: a whiteout is for lower layers only |
//! | a whiteout | a directory | the directory, opaque |
//! | anything else | a whiteout of it | unchanged |
//! | a whiteout | no directory | that |
//!
//! Source: OCI image layer specification, "Whiteouts" and "Opaque Whiteout"; overlay's forms are in the kernel's
//! Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".

use std::io::BufRead;

use cofferdam_archive::{Archive, Entry, Kind};

use crate::{
    LayerError, contents,
    error::Show,
    hard_links::Pending,
    space::Space,
    tree::{
        Flags, Inode, Missing, Names, ROOT, Target, Tree,
        node::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG},
    },
    xattr,
};

/// A whiteout's prefix.
const WHITEOUT: &[u8] = b".wh.";
/// Prefix of what is metadata of aufs, but for [`OPAQUE`].
const AUFS: &[u8] = b".wh..wh.";
/// What makes a directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The layer in the making.
#[derive(Debug)]
pub(crate) struct Assembly<'f> {
    /// What it holds.
    pub(crate) tree: Tree,
    /// Where it is.
    pub(crate) space: Space<'f>,
    /// Blocks that a sparse file of a size has or has not as one.
    sparse_unit: fn(u64) -> u64,
    pending: Pending,
    attributes: xattr::Sets,
}

impl<'f> Assembly<'f> {
    /// An empty layer.
    pub(crate) fn new(space: Space<'f>, sparse_unit: fn(u64) -> u64) -> Result<Self, LayerError> {
        Ok(Self {
            tree: Tree::new()?,
            space,
            sparse_unit,
            pending: Pending::new(),
            attributes: xattr::Sets::default(),
        })
    }

    /// Attributes that no file system here can hold.
    pub(crate) fn ignored_xattrs(&self) -> u64 {
        self.attributes.ignored
    }

    /// Takes the archive's next entry, and its data.
    pub(crate) fn add<R: BufRead>(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), LayerError> {
        let Some(target) = self.tree.resolve(&entry.path, Missing::Make)? else {
            return Ok(());
        };
        let (directory, name) = match target {
            Target::Root if entry.kind == Kind::Directory => {
                let described = self.describe(entry)?;
                return self.redescribe(ROOT, &described);
            }
            Target::Root => {
                return Err(LayerError::RootIsNoDirectory {
                    path: Show::new(&entry.path),
                });
            }
            Target::Name { directory, name } => (directory, name),
        };
        if name == OPAQUE {
            return self.make_opaque(directory);
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.add_whiteout(directory, hidden, entry);
        }
        if let Kind::HardLink { target } = &entry.kind {
            return self.add_hard_link(directory, name, target, entry);
        }
        let mut inode = self.describe(entry)?;
        if let Kind::File { segments, .. } = &entry.kind {
            // Its predecessor goes first: a file that comes again and again takes no more room than once.
            let dentry = self.vacate(directory, name)?;
            let unit = (self.sparse_unit)(inode.size);
            contents::store(
                archive,
                &mut self.tree,
                &mut self.space,
                &mut inode,
                segments.as_deref(),
                unit,
            )?;
            let number = self.tree.inodes.push(&inode)?;
            match dentry {
                Some(dentry) => self.tree.rename_to(dentry, number)?,
                None => self.tree.add_name(directory, name, number).map(drop)?,
            }
            return Ok(());
        }
        self.put(directory, name, inode).map(drop)
    }

    /// Everything is there: links to what came later find it.
    pub(crate) fn close(&mut self) -> Result<(), LayerError> {
        self.pending.resolve(&mut self.tree)
    }

    /// The entry as an inode, without its data.
    fn describe(&mut self, entry: &Entry) -> Result<Inode, LayerError> {
        let mut inode = Inode {
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            links: 1,
            ..Inode::default()
        };
        let device = |major: &u32, minor: &u32| u64::from(*major) << 32 | u64::from(*minor);
        let kind = match &entry.kind {
            Kind::File { size, .. } => {
                inode.size = *size;
                S_IFREG
            }
            Kind::Symlink { target } => {
                inode.size = target.len() as u64;
                inode.at = self.tree.text.append(target)?;
                S_IFLNK
            }
            Kind::CharacterDevice { major, minor } => {
                inode.at = device(major, minor);
                S_IFCHR
            }
            Kind::BlockDevice { major, minor } => {
                inode.at = device(major, minor);
                S_IFBLK
            }
            Kind::Fifo => S_IFIFO,
            Kind::Directory => S_IFDIR,
            // Links are names of other inodes; they do not come here.
            Kind::HardLink { .. } => 0,
        };
        // Linux has no permissions on symbolic links, and shows all of them.
        let permissions = if kind == S_IFLNK {
            0o777
        } else {
            entry.mode & 0o7777
        };
        inode.mode = kind | permissions as u16;
        inode.xattrs = self.attributes.keep(&mut self.tree, entry)?;
        Ok(inode)
    }

    /// Gives a name to a new inode.
    fn put(&mut self, directory: u32, name: &[u8], mut inode: Inode) -> Result<u32, LayerError> {
        if inode.is_dir() {
            inode.extra = u64::from(directory) << 32;
        }
        let Some((dentry, old)) = self.tree.lookup(directory, name)? else {
            let number = self.tree.inodes.push(&inode)?;
            self.tree.add_name(directory, name, number)?;
            return Ok(number);
        };
        let there = self.tree.inodes.get(old)?;
        if there.is_dir() && inode.is_dir() {
            self.redescribe(old, &inode)?;
            return Ok(old);
        }
        if there.flags.has(Flags::WHITEOUT) && inode.is_dir() {
            inode.flags.set(Flags::OPAQUE);
        }
        self.release(old)?;
        let number = self.tree.inodes.push(&inode)?;
        self.tree.rename_to(dentry, number)?;
        Ok(number)
    }

    /// A directory's own facts, anew.
    fn redescribe(&mut self, directory: u32, described: &Inode) -> Result<(), LayerError> {
        let old = self.tree.inodes.get(directory)?;
        let mut new = *described;
        new.extra = old.extra;
        new.links = old.links;
        new.flags = old.flags;
        new.flags.clear(Flags::IMPLICIT);
        self.tree.inodes.set(directory, &new)?;
        Ok(())
    }

    /// Takes away what a name stands for. The name, if there is one, is to stand for something else at once.
    fn vacate(&mut self, directory: u32, name: &[u8]) -> Result<Option<u32>, LayerError> {
        let Some((dentry, old)) = self.tree.lookup(directory, name)? else {
            return Ok(None);
        };
        self.release(old)?;
        Ok(Some(dentry))
    }

    /// One name less. With the last, its blocks are free, and so is all that a directory holds.
    fn release(&mut self, number: u32) -> Result<(), LayerError> {
        let mut open: Vec<Names> = Vec::new();
        let mut next = Some(number);
        loop {
            if let Some(number) = next.take()
                && let Some(names) = self.release_one(number)?
            {
                open.push(names);
            }
            let Some(names) = open.last_mut() else {
                return Ok(());
            };
            match names.next(&mut self.tree)? {
                Some((_, dentry)) => next = Some(dentry.inode),
                None => drop(open.pop()),
            }
        }
    }

    /// The same, but for a directory's names, which it gives.
    fn release_one(&mut self, number: u32) -> Result<Option<Names>, LayerError> {
        let mut inode = self.tree.inodes.get(number)?;
        inode.links = inode.links.saturating_sub(1);
        self.tree.inodes.set(number, &inode)?;
        if inode.links > 0 {
            return Ok(None);
        }
        if inode.kind() == S_IFREG {
            // From the end: the newest run may then be taken again.
            for run in contents::runs(&mut self.tree, &inode)?.iter().rev() {
                self.space.free(run.physical, run.count)?;
            }
        }
        Ok(if inode.is_dir() {
            Some(self.tree.names(number)?)
        } else {
            None
        })
    }

    fn add_whiteout(&mut self, directory: u32, hidden: &[u8], entry: &Entry) -> Result<(), LayerError> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(LayerError::BadWhiteout {
                path: Show::new(&entry.path),
            });
        }
        if let Some((_, number)) = self.tree.lookup(directory, hidden)? {
            let there = self.tree.inodes.get(number)?;
            return if there.is_dir() {
                self.make_opaque(number)
            } else {
                Ok(())
            };
        }
        let whiteout = Inode {
            mode: S_IFCHR,
            flags: Flags(Flags::WHITEOUT),
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            links: 1,
            ..Inode::default()
        };
        self.put(directory, hidden, whiteout).map(drop)
    }

    fn make_opaque(&mut self, directory: u32) -> Result<(), LayerError> {
        let mut inode = self.tree.inodes.get(directory)?;
        inode.flags.set(Flags::OPAQUE);
        self.tree.inodes.set(directory, &inode)?;
        Ok(())
    }

    fn add_hard_link(
        &mut self,
        directory: u32,
        name: &[u8],
        target: &[u8],
        entry: &Entry,
    ) -> Result<(), LayerError> {
        match self.pending.find(&mut self.tree, target, &entry.path)? {
            Some(file) => {
                let here = self.tree.lookup(directory, name)?;
                if here.is_some_and(|(_, number)| number == file) {
                    return Ok(());
                }
                if let Some((dentry, old)) = here {
                    self.release(old)?;
                    self.tree.rename_to(dentry, file)?;
                } else {
                    self.tree.add_name(directory, name, file)?;
                }
                let mut inode = self.tree.inodes.get(file)?;
                inode.links = inode.links.saturating_add(1);
                self.tree.inodes.set(file, &inode)?;
                Ok(())
            }
            None => {
                let placeholder = self.put(directory, name, Pending::placeholder())?;
                self.pending
                    .remember(&mut self.tree, directory, name, placeholder, target, &entry.path)
            }
        }
    }
}
