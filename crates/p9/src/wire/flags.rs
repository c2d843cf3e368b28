//! Bit sets whose numbers are the protocol's own, not the host's.

use bitflags::bitflags;

bitflags! {
    /// A qid's type: the top byte of a Plan 9 mode.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct QidType: u8 {
        /// A directory.
        const DIRECTORY = 0x80;
        /// A symbolic link.
        const SYMLINK = 0x02;
        /// Bits that mean nothing here and pass through.
        const _ = !0;
    }

    /// Flags of Tlopen and Tlcreate. The access mode is the two lowest bits: see [`OpenFlags::access`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct OpenFlags: u32 {
        /// Write only (access mode 1).
        const WRITE_ONLY = 0o1;
        /// Read and write (access mode 2).
        const READ_WRITE = 0o2;
        /// Create if absent.
        const CREATE = 0o100;
        /// With [`OpenFlags::CREATE`]: fail if present.
        const EXCLUSIVE = 0o200;
        /// Cut to length 0.
        const TRUNCATE = 0o1000;
        /// Every write goes to the end.
        const APPEND = 0o2000;
        /// Data is on the disk before a write returns.
        const DATA_SYNC = 0o10000;
        /// Around the page cache.
        const DIRECT = 0o40000;
        /// Fail unless it is a directory.
        const DIRECTORY = 0o200000;
        /// Leave the access time alone.
        const NO_ACCESS_TIME = 0o1000000;
        /// Data and metadata are on the disk before a write returns.
        const SYNC = 0o4000000;
        /// Bits with no effect on a server (O_NOCTTY, O_NONBLOCK, O_CLOEXEC, O_LARGEFILE and the like).
        const _ = !0;
    }

    /// Which fields of Rgetattr are valid, and which a Tgetattr asks for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct GetattrMask: u64 {
        /// Mode, links, owner, device, times, inode number, size and blocks.
        const BASIC = 0x7ff;
        /// Creation time.
        const BIRTH_TIME = 0x800;
        /// Everything the protocol knows of.
        const ALL = 0x3fff;
        /// Bits unknown to the protocol.
        const _ = !0;
    }

    /// Which fields of Tsetattr to set.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct SetattrMask: u32 {
        /// The permission bits.
        const MODE = 0x1;
        /// The owner.
        const UID = 0x2;
        /// The group.
        const GID = 0x4;
        /// The length in bytes.
        const SIZE = 0x8;
        /// The access time: to now, unless [`SetattrMask::ATIME_SET`].
        const ATIME = 0x10;
        /// The modification time: to now, unless [`SetattrMask::MTIME_SET`].
        const MTIME = 0x20;
        /// The change time, to now; the system sets it by itself.
        const CTIME = 0x40;
        /// The access time to the value given.
        const ATIME_SET = 0x80;
        /// The modification time to the value given.
        const MTIME_SET = 0x100;
        /// Bits unknown to the protocol.
        const _ = !0;
    }
}

impl OpenFlags {
    /// The access mode: 0 read, 1 write, 2 both; 3 (no access) counts as both, as the Linux client's table has it.
    fn access(self) -> u32 {
        self.bits() & 0o3
    }

    /// Whether data may be read through it.
    pub fn reads(self) -> bool {
        self.access() != 1
    }

    /// Whether data may be written through it.
    pub fn writes(self) -> bool {
        self.access() != 0
    }
}
