//! Hard links to files that come later in the archive.

use std::io;

use crate::{
    LayerError,
    error::Show,
    records::{Record, Records},
    tree::{Flags, Inode, Missing, Target, Tree},
};

/// Memory for waiting links, in bytes.
const MEMORY: usize = 256 * 1024;
/// How often all waiting links are looked at: links to links to links are found in either order.
const ROUNDS: u32 = 16;

/// A link that waits for its file.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    dentry: u32,
    placeholder: u32,
    /// The target's path, counted, in the text; the link's own follows it.
    target_at: u64,
}

impl Record<16> for Waiting {
    fn to_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.dentry.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.placeholder.to_le_bytes());
        bytes[8..].copy_from_slice(&self.target_at.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, target_at @ ..] = *bytes;
        Self {
            dentry: u32::from_le_bytes([a, b, c, d]),
            placeholder: u32::from_le_bytes([e, f, g, h]),
            target_at: u64::from_le_bytes(target_at),
        }
    }
}

/// Links whose files have not come yet.
#[derive(Debug)]
pub(crate) struct Pending {
    waiting: Records<Waiting, 16>,
}

impl Pending {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            waiting: Records::new(MEMORY),
        }
    }

    /// What stands for a file that has not come: an inode without a type.
    pub(crate) fn placeholder() -> Inode {
        Inode {
            links: 1,
            ..Inode::default()
        }
    }

    /// The file at `target`, if it has come.
    pub(crate) fn find(
        &mut self,
        tree: &mut Tree,
        target: &[u8],
        link: &[u8],
    ) -> Result<Option<u32>, LayerError> {
        let to_directory = || LayerError::LinkToDirectory {
            path: Show::new(link),
            target: Show::new(target),
        };
        let (directory, name) = match tree.resolve(target, Missing::Nothing)? {
            None => return Ok(None),
            Some(Target::Root) => return Err(to_directory()),
            Some(Target::Name { directory, name }) => (directory, name),
        };
        let Some((_, number)) = tree.lookup(directory, name)? else {
            return Ok(None);
        };
        let inode = tree.inodes.get(number)?;
        if inode.links == 0 || inode.mode == 0 || inode.flags.has(Flags::WHITEOUT) {
            Ok(None)
        } else if inode.is_dir() {
            Err(to_directory())
        } else {
            Ok(Some(number))
        }
    }

    /// Keeps a link for later.
    pub(crate) fn remember(
        &mut self,
        tree: &mut Tree,
        directory: u32,
        name: &[u8],
        placeholder: u32,
        target: &[u8],
        path: &[u8],
    ) -> Result<(), LayerError> {
        let Some((dentry, _)) = tree.lookup(directory, name)? else {
            return Ok(());
        };
        let target_at = tree.append_counted(target)?;
        tree.append_counted(path)?;
        self.waiting.push(&Waiting {
            dentry,
            placeholder,
            target_at,
        })?;
        Ok(())
    }

    /// Gives every link that still waits its file.
    pub(crate) fn resolve(&mut self, tree: &mut Tree) -> Result<(), LayerError> {
        let count = self.waiting.count();
        for round in 0..ROUNDS {
            let mut left = 0;
            for step in 0..count {
                let number = if round % 2 == 0 { count - 1 - step } else { step };
                let waiting = self.waiting.get(number)?;
                if !still_waits(tree, &waiting)? {
                    continue;
                }
                let target = tree.read_counted(waiting.target_at)?;
                let path = path_of(tree, &waiting)?;
                match self.find(tree, &target, &path)? {
                    Some(file) => give(tree, &waiting, file)?,
                    None => left += 1,
                }
            }
            if left == 0 {
                return Ok(());
            }
        }
        for number in 0..count {
            let waiting = self.waiting.get(number)?;
            if still_waits(tree, &waiting)? {
                return Err(LayerError::NoTarget {
                    path: Show::new(&path_of(tree, &waiting)?),
                    target: Show::new(&tree.read_counted(waiting.target_at)?),
                });
            }
        }
        Ok(())
    }
}

/// Whether the link's name still stands for nothing: another entry may have taken it.
fn still_waits(tree: &mut Tree, waiting: &Waiting) -> io::Result<bool> {
    Ok(tree.inodes.get(waiting.placeholder)?.links > 0
        && tree.dentry(waiting.dentry)?.inode == waiting.placeholder)
}

fn path_of(tree: &mut Tree, waiting: &Waiting) -> io::Result<Vec<u8>> {
    let target = tree.read_counted(waiting.target_at)?;
    tree.read_counted(waiting.target_at + 4 + target.len() as u64)
}

fn give(tree: &mut Tree, waiting: &Waiting, file: u32) -> io::Result<()> {
    let mut placeholder = tree.inodes.get(waiting.placeholder)?;
    placeholder.links = 0;
    tree.inodes.set(waiting.placeholder, &placeholder)?;
    tree.rename_to(waiting.dentry, file)?;
    let mut inode = tree.inodes.get(file)?;
    inode.links = inode.links.saturating_add(1);
    tree.inodes.set(file, &inode)
}
