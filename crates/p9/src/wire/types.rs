//! Compound fields.

use super::{
    MAX_WALK, WireError,
    field::{Field, Reader, Text},
    flags::{GetattrMask, OpenFlags, QidType, SetattrMask},
};

/// A file's identity for the client's caches: two files of one export never share a path, and a changed file has
/// another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Qid {
    /// Directory, symbolic link or other.
    pub kind: QidType,
    /// Changes when the file does.
    pub version: u32,
    /// Unique in the export.
    pub path: u64,
}

impl<'a> Field<'a> for Qid {
    fn get(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Self {
            kind: QidType::from_bits_retain(reader.u8()?),
            version: reader.u32()?,
            path: reader.u64()?,
        })
    }
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        self.kind.bits().put(out)?;
        self.version.put(out)?;
        self.path.put(out)
    }
}

macro_rules! bits {
    ($($flags:ident: $bits:ident),*) => {$(
        impl<'a> Field<'a> for $flags {
            fn get(reader: &mut Reader<'a>) -> Result<Self, WireError> {
                Ok(Self::from_bits_retain(reader.$bits()?))
            }
            fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
                self.bits().put(out)
            }
        }
    )*};
}
bits!(OpenFlags: u32, GetattrMask: u64, SetattrMask: u32);

/// At most [`MAX_WALK`] of something, without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct UpTo16<T> {
    items: [T; MAX_WALK],
    len: usize,
}

impl<T: Copy + Default> UpTo16<T> {
    fn push(&mut self, item: T) -> bool {
        match self.items.get_mut(self.len) {
            Some(place) => {
                *place = item;
                self.len += 1;
                true
            }
            None => false,
        }
    }

    fn as_slice(&self) -> &[T] {
        &self.items[..self.len]
    }
}

impl<'a, T: Field<'a> + Copy + Default> Field<'a> for UpTo16<T> {
    fn get(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = reader.u16()?;
        if usize::from(count) > MAX_WALK {
            return Err(WireError::WalkTooLong(count));
        }
        let mut all = Self::default();
        for _ in 0..count {
            all.push(T::get(reader)?);
        }
        Ok(all)
    }
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        u16::try_from(self.len)
            .map_err(|_| WireError::FieldTooLong(self.len))?
            .put(out)?;
        self.as_slice().iter().try_for_each(|item| item.put(out))
    }
}

macro_rules! list {
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)? of $item:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name $(<$life>)? (UpTo16<$item>);

        impl $(<$life>)? $name $(<$life>)? {
            /// Adds one; false if it is full.
            pub fn push(&mut self, item: $item) -> bool {
                self.0.push(item)
            }

            /// What it holds, in order.
            pub fn as_slice(&self) -> &[$item] {
                self.0.as_slice()
            }
        }

        impl<'a> Field<'a> for list!(@with $name $(<$life>)?) {
            fn get(reader: &mut Reader<'a>) -> Result<Self, WireError> {
                UpTo16::get(reader).map($name)
            }
            fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
                self.0.put(out)
            }
        }
    };
    (@with $name:ident <$life:lifetime>) => { $name<'a> };
    (@with $name:ident) => { $name };
}
list!(
    /// The names of a Twalk, at most [`MAX_WALK`].
    Names<'a> of Text<'a>
);
list!(
    /// The qids of an Rwalk, at most [`MAX_WALK`].
    Qids of Qid
);

macro_rules! record {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl<'a> Field<'a> for $name {
            fn get(reader: &mut Reader<'a>) -> Result<Self, WireError> {
                Ok(Self { $($field: Field::get(reader)?,)* })
            }
            fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
                $(self.$field.put(out)?;)*
                Ok(())
            }
        }
    };
}
record!(
    /// What Rgetattr tells of a file. Times are seconds and nanoseconds since the epoch.
    Attributes {
        /// Which of the fields mean something.
        valid: GetattrMask,
        /// Identity and version.
        qid: Qid,
        /// Type and permissions, as `st_mode`.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Hard links.
        nlink: u64,
        /// The device a device node stands for, in the kernel's 32-bit encoding.
        rdev: u64,
        /// Length in bytes.
        size: u64,
        /// Preferred size of a read or write, in bytes.
        blksize: u64,
        /// Space taken, in units of 512 bytes.
        blocks: u64,
        /// Access time, seconds.
        atime_sec: u64,
        /// Access time, nanoseconds.
        atime_nsec: u64,
        /// Modification time, seconds.
        mtime_sec: u64,
        /// Modification time, nanoseconds.
        mtime_nsec: u64,
        /// Change time, seconds.
        ctime_sec: u64,
        /// Change time, nanoseconds.
        ctime_nsec: u64,
        /// Creation time, seconds.
        btime_sec: u64,
        /// Creation time, nanoseconds.
        btime_nsec: u64,
        /// Inode generation.
        generation: u64,
        /// Reserved by the protocol.
        data_version: u64,
    }
);
record!(
    /// What Rstatfs tells of the file system under a file.
    FsStats {
        /// The file system's magic number.
        kind: u32,
        /// Size of a block in bytes.
        bsize: u32,
        /// Blocks.
        blocks: u64,
        /// Free blocks.
        bfree: u64,
        /// Free blocks for an ordinary user.
        bavail: u64,
        /// Inodes.
        files: u64,
        /// Free inodes.
        ffree: u64,
        /// The file system's identity.
        fsid: u64,
        /// The longest name in bytes.
        namelen: u32,
    }
);

/// A lock's type in Tlock and Tgetlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockType {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// None.
    Unlock,
}

impl LockType {
    /// The number's meaning; none for a number the protocol has not.
    pub fn from_wire(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Read),
            1 => Some(Self::Write),
            2 => Some(Self::Unlock),
            _ => None,
        }
    }

    /// The protocol's number.
    pub fn to_wire(self) -> u8 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Unlock => 2,
        }
    }
}

/// How a Tlock ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockStatus {
    /// The lock is held.
    Success,
    /// Somebody else holds it; ask again later.
    Blocked,
    /// It cannot be had.
    Error,
}

impl LockStatus {
    /// The protocol's number.
    pub fn to_wire(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Blocked => 1,
            Self::Error => 2,
        }
    }
}
