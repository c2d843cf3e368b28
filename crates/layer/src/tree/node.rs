//! What is kept of a file and of a name.

use cofferdam_archive::Time;

use crate::records::Record;

/// File type bits of a mode (inode(7)).
pub(crate) const S_IFMT: u16 = 0o170_000;
/// A named pipe.
pub(crate) const S_IFIFO: u16 = 0o010_000;
/// A character device.
pub(crate) const S_IFCHR: u16 = 0o020_000;
/// A directory.
pub(crate) const S_IFDIR: u16 = 0o040_000;
/// A block device.
pub(crate) const S_IFBLK: u16 = 0o060_000;
/// A regular file.
pub(crate) const S_IFREG: u16 = 0o100_000;
/// A symbolic link.
pub(crate) const S_IFLNK: u16 = 0o120_000;

/// A type as ext4 and EROFS both have it in their directories.
pub(crate) fn file_type(kind: u16) -> u8 {
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

/// Bytes of an [`Inode`]'s record.
pub(crate) const INODE_BYTES: usize = 64;
/// Bytes of a [`Dentry`]'s record.
pub(crate) const DENTRY_BYTES: usize = 32;

/// Facts of an inode that are one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(pub(crate) u16);

impl Flags {
    /// A regular file that is not one run of blocks: `extra` is where its map is.
    pub(crate) const MAPPED: u16 = 1;
    /// A directory that hides those of lower layers.
    pub(crate) const OPAQUE: u16 = 2;
    /// A whiteout, made from a `.wh.` entry.
    pub(crate) const WHITEOUT: u16 = 4;
    /// A directory that no entry has described yet.
    pub(crate) const IMPLICIT: u16 = 8;
    /// The file system has given the attributes a block of their own: `xattrs` is its number.
    pub(crate) const XATTR_BLOCK: u16 = 16;
    /// The file system has written a block map: `extra` is where its root is kept.
    pub(crate) const ROOTED: u16 = 32;
    /// A directory that was written with an index.
    pub(crate) const INDEXED: u16 = 64;

    /// Whether it is so.
    pub(crate) fn has(self, flag: u16) -> bool {
        self.0 & flag != 0
    }

    /// Makes it so.
    pub(crate) fn set(&mut self, flag: u16) {
        self.0 |= flag;
    }

    /// Makes it not so.
    pub(crate) fn clear(&mut self, flag: u16) {
        self.0 &= !flag;
    }
}

/// A file of any type. "In the text" means a position in the tree's text spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Inode {
    /// Type and permissions, as st_mode has them.
    pub(crate) mode: u16,
    /// See [`Flags`].
    pub(crate) flags: Flags,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Modification time.
    pub(crate) mtime: Time,
    /// Regular file: its size. Symbolic link: the target's length. In bytes.
    pub(crate) size: u64,
    /// Regular file: its first block. Symbolic link: the target, in the text. Device: major in the upper half, minor in
    /// the lower.
    pub(crate) at: u64,
    /// Mapped file: its map, in the text. Directory: the newest of its names (see [`Dentry::next`]) in the lower half,
    /// its parent in the upper.
    pub(crate) extra: u64,
    /// Its extended attributes in the text, plus one; 0 where it has none.
    pub(crate) xattrs: u64,
    /// Names it has; 0 once it was replaced.
    pub(crate) links: u32,
    /// Its number in the file system.
    pub(crate) number: u32,
}

impl Inode {
    /// The type bits of its mode.
    pub(crate) fn kind(&self) -> u16 {
        self.mode & S_IFMT
    }

    /// Whether it is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        self.kind() == S_IFDIR
    }

    /// A directory's newest name plus one, 0 for none.
    pub(crate) fn newest(&self) -> u32 {
        self.extra as u32
    }

    /// Changes it.
    pub(crate) fn set_newest(&mut self, dentry_plus_one: u32) {
        self.extra = self.extra & !0xFFFF_FFFF | u64::from(dentry_plus_one);
    }

    /// The directory that a directory is in; the root's is itself.
    pub(crate) fn parent(&self) -> u32 {
        (self.extra >> 32) as u32
    }

    /// Major and minor number of a device.
    pub(crate) fn device(&self) -> (u32, u32) {
        ((self.at >> 32) as u32, self.at as u32)
    }
}

impl Record<INODE_BYTES> for Inode {
    fn to_bytes(&self) -> [u8; INODE_BYTES] {
        let mut bytes = [0; INODE_BYTES];
        bytes[0..2].copy_from_slice(&self.mode.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.flags.0.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.uid.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.gid.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.mtime.nanoseconds.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.mtime.seconds.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.size.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.at.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.extra.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.xattrs.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.links.to_le_bytes());
        bytes[60..64].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; INODE_BYTES]) -> Self {
        Self {
            mode: u16_at(bytes, 0),
            flags: Flags(u16_at(bytes, 2)),
            uid: u32_at(bytes, 4),
            gid: u32_at(bytes, 8),
            mtime: Time {
                seconds: u64_at(bytes, 16) as i64,
                nanoseconds: u32_at(bytes, 12),
            },
            size: u64_at(bytes, 24),
            at: u64_at(bytes, 32),
            extra: u64_at(bytes, 40),
            xattrs: u64_at(bytes, 48),
            links: u32_at(bytes, 56),
            number: u32_at(bytes, 60),
        }
    }
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dentry {
    /// The directory.
    pub(crate) parent: u32,
    /// What it names.
    pub(crate) inode: u32,
    /// The directory's name before this one, plus one; 0 for the first.
    pub(crate) next: u32,
    /// The name's length, in bytes.
    pub(crate) name_length: u8,
    /// The name, in the text.
    pub(crate) name_at: u64,
    /// The hash of directory and name.
    pub(crate) hash: u64,
}

impl Record<DENTRY_BYTES> for Dentry {
    fn to_bytes(&self) -> [u8; DENTRY_BYTES] {
        let mut bytes = [0; DENTRY_BYTES];
        bytes[0..4].copy_from_slice(&self.parent.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.inode.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.next.to_le_bytes());
        bytes[12] = self.name_length;
        bytes[16..24].copy_from_slice(&self.name_at.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.hash.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; DENTRY_BYTES]) -> Self {
        Self {
            parent: u32_at(bytes, 0),
            inode: u32_at(bytes, 4),
            next: u32_at(bytes, 8),
            name_length: bytes[12],
            name_at: u64_at(bytes, 16),
            hash: u64_at(bytes, 24),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_come_back_as_they_went(numbers in prop::collection::vec(any::<u64>(), 12)) {
            let inode = Inode {
                mode: numbers[0] as u16,
                flags: Flags(numbers[1] as u16),
                uid: numbers[2] as u32,
                gid: numbers[3] as u32,
                mtime: Time { seconds: numbers[4] as i64, nanoseconds: numbers[5] as u32 },
                size: numbers[6],
                at: numbers[7],
                extra: numbers[8],
                xattrs: numbers[9],
                links: numbers[10] as u32,
                number: numbers[11] as u32,
            };
            prop_assert_eq!(Inode::from_bytes(&inode.to_bytes()), inode);
            let dentry = Dentry {
                parent: numbers[0] as u32,
                inode: numbers[1] as u32,
                next: numbers[2] as u32,
                name_length: numbers[3] as u8,
                name_at: numbers[4],
                hash: numbers[5],
            };
            prop_assert_eq!(Dentry::from_bytes(&dentry.to_bytes()), dentry);
        }
    }
}
