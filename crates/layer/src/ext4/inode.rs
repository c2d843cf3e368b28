//! Inodes as they are in the table.
//! Source: Documentation/filesystems/ext4/inodes.rst.

use cofferdam_archive::Time;

use super::{
    attributes::{self, IN_INODE},
    extents::ROOT_BYTES,
};
use crate::tree::Inode;

/// Bytes of an inode.
pub(super) const INODE_BYTES: usize = 256;
/// Bytes of its own fields beyond the first 128 (`i_extra_isize`).
pub(super) const EXTRA_BYTES: u16 = 32;
const ATTRIBUTES: usize = INODE_BYTES - IN_INODE;
/// Its blocks are in extents.
pub(super) const EXTENTS_FL: u32 = 0x8_0000;
/// A directory with an index.
pub(super) const INDEX_FL: u32 = 0x1000;
/// Sectors of 512 bytes in a block.
const SECTORS: u64 = 8;

/// What an inode's record does not say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Details {
    /// Its size, in bytes.
    pub(super) size: u64,
    /// Its links, as stored.
    pub(super) links: u16,
    /// Blocks it has, those that are not its content included.
    pub(super) blocks: u64,
    /// `EXTENTS_FL`, `INDEX_FL`.
    pub(super) flags: u32,
    /// The block area.
    pub(super) area: [u8; ROOT_BYTES],
    /// The block with its attributes; 0 for none.
    pub(super) attribute_block: u64,
    /// Its attributes where they are in the inode.
    pub(super) attributes: [u8; IN_INODE],
}

impl Details {
    /// Of a file without content or attributes.
    pub(super) fn empty(links: u32) -> Self {
        Self {
            size: 0,
            links: links as u16,
            blocks: 0,
            flags: 0,
            area: [0; ROOT_BYTES],
            attribute_block: 0,
            attributes: attributes::in_inode(&[]),
        }
    }
}

/// The inode's bytes.
pub(super) fn to_bytes(inode: &Inode, details: &Details) -> [u8; INODE_BYTES] {
    let mut bytes = [0; INODE_BYTES];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let (seconds, extra) = stamp(inode.mtime);
    let sectors = details.blocks * SECTORS;
    put(0x00, &inode.mode.to_le_bytes());
    put(0x02, &(inode.uid as u16).to_le_bytes());
    put(0x04, &(details.size as u32).to_le_bytes());
    put(0x08, &seconds); // atime
    put(0x0C, &seconds); // ctime
    put(0x10, &seconds); // mtime
    put(0x18, &(inode.gid as u16).to_le_bytes());
    put(0x1A, &details.links.to_le_bytes());
    put(0x1C, &(sectors as u32).to_le_bytes());
    put(0x20, &details.flags.to_le_bytes());
    put(0x28, &details.area);
    put(0x68, &(details.attribute_block as u32).to_le_bytes());
    put(0x6C, &((details.size >> 32) as u32).to_le_bytes());
    put(0x74, &((sectors >> 32) as u16).to_le_bytes());
    put(0x76, &((details.attribute_block >> 32) as u16).to_le_bytes());
    put(0x78, &((inode.uid >> 16) as u16).to_le_bytes());
    put(0x7A, &((inode.gid >> 16) as u16).to_le_bytes());
    put(0x80, &EXTRA_BYTES.to_le_bytes());
    put(0x84, &extra); // ctime
    put(0x88, &extra); // mtime
    put(0x8C, &extra); // atime
    put(0x90, &seconds); // crtime
    put(0x94, &extra); // crtime
    put(ATTRIBUTES, &details.attributes);
    bytes
}

/// A device's number in the block area: the old form where it fits, else the new one.
pub(super) fn device_area(major: u32, minor: u32) -> Option<[u8; ROOT_BYTES]> {
    let mut area = [0; ROOT_BYTES];
    if major < 256 && minor < 256 {
        area[0..4].copy_from_slice(&(major << 8 | minor).to_le_bytes());
    } else if major < 1 << 12 && minor < 1 << 20 {
        let new = minor & 0xFF | major << 8 | (minor & !0xFF) << 12;
        area[4..8].copy_from_slice(&new.to_le_bytes());
    } else {
        return None;
    }
    Some(area)
}

/// Seconds, and what extends them: two more bits and the nanoseconds. Times that ext4 does not have become the nearest
/// it has, as the kernel does it.
fn stamp(time: Time) -> ([u8; 4], [u8; 4]) {
    const FIRST: i64 = -(1 << 31);
    const LAST: i64 = (1 << 34) - (1 << 31) - 1;
    let seconds = time.seconds.clamp(FIRST, LAST);
    let nanoseconds = if seconds == time.seconds {
        time.nanoseconds
    } else {
        0
    };
    let low = seconds as u32;
    let epoch = ((seconds - i64::from(low as i32)) >> 32) as u32 & 3;
    (low.to_le_bytes(), (epoch | nanoseconds << 2).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As fs/ext4/ext4.h decodes it.
    fn decode((seconds, extra): ([u8; 4], [u8; 4])) -> Time {
        let extra = u32::from_le_bytes(extra);
        Time {
            seconds: i64::from(i32::from_le_bytes(seconds)) + (i64::from(extra & 3) << 32),
            nanoseconds: extra >> 2,
        }
    }

    #[test]
    fn times_from_1901_to_2446_are_kept_to_the_nanosecond() {
        for seconds in [
            -(1 << 31),
            -1,
            0,
            1_700_000_000,
            (1 << 31) - 1,
            1 << 31,
            1 << 33,
            (1 << 34) - (1 << 31) - 1,
        ] {
            let time = Time {
                seconds,
                nanoseconds: 999_999_999,
            };
            assert_eq!(decode(stamp(time)), time);
        }
        let later = Time {
            seconds: i64::MAX,
            nanoseconds: 5,
        };
        assert_eq!(decode(stamp(later)).seconds, (1 << 34) - (1 << 31) - 1);
    }

    #[test]
    fn device_numbers_have_12_and_20_bits() {
        assert_eq!(
            device_area(8, 1).map(|area| area[0..2].to_vec()),
            Some(vec![1, 8])
        );
        assert!(device_area(4095, (1 << 20) - 1).is_some());
        assert!(device_area(4096, 0).is_none());
        assert!(device_area(0, 1 << 20).is_none());
    }
}
