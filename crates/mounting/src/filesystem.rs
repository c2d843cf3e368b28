//! Which file system a block device holds, and how to mount it.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read},
    path::Path,
};

use rustix::mount::{MountFlags, mount};

use crate::error::{During, MountError, Result};

/// Bytes looked at: superblocks of all known kinds lie within.
const PROBE_BYTES: usize = 2048;
/// ext4: offset of the superblock and its magic.
const EXT4_SUPER: usize = 1024;
const EXT4_MAGIC: u16 = 0xEF53;
/// ext4: the feature with which block counts have an upper half.
const EXT4_64BIT: u32 = 0x80;
/// ext4: the largest block is 64 KiB, 1024 << 6.
const EXT4_MAX_LOG_BLOCK: u32 = 6;
/// EROFS: magic at the same superblock offset.
const EROFS_MAGIC: u32 = 0xE0F5_E1E2;
/// EROFS: logarithms of block sizes, 512 bytes to 64 KiB.
const EROFS_LOG_BLOCKS: std::ops::RangeInclusive<u32> = 9..=16;

/// What a superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filesystem {
    /// The type's name for mount(2).
    pub name: &'static str,
    /// Its size in bytes; `None` where the superblock does not say it in a way known here. Not checked against the
    /// device.
    pub size_bytes: Option<u64>,
}

impl Filesystem {
    /// Reads the superblock of `device`.
    ///
    /// # Errors
    /// The system's, and [`MountError::Invalid`] where it is of no known kind.
    pub fn detect(device: &Path) -> Result<Self> {
        let mut head = Vec::with_capacity(PROBE_BYTES);
        File::open(device)
            .and_then(|file| file.take(PROBE_BYTES as u64).read_to_end(&mut head))
            .during(|| format!("reading the superblock of {}", device.display()))?;
        Self::from_head(&head).ok_or_else(|| {
            MountError::Invalid(format!(
                "{} holds no file system known here (ext4, EROFS, XFS) in its first {} bytes",
                device.display(),
                head.len()
            ))
        })
    }

    fn from_head(head: &[u8]) -> Option<Self> {
        let u16_at = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        if u16_at(EXT4_SUPER + 0x38) == Some(EXT4_MAGIC) {
            let size = || {
                let log = u32_at(EXT4_SUPER + 0x18).filter(|log| *log <= EXT4_MAX_LOG_BLOCK)?;
                let wide = u32_at(EXT4_SUPER + 0x60)? & EXT4_64BIT != 0;
                let high = if wide { u32_at(EXT4_SUPER + 0x150)? } else { 0 };
                let blocks = u64::from(high) << 32 | u64::from(u32_at(EXT4_SUPER + 0x4)?);
                blocks.checked_mul(1024 << log)
            };
            return Some(Self {
                name: "ext4",
                size_bytes: size(),
            });
        }
        if u32_at(EXT4_SUPER) == Some(EROFS_MAGIC) {
            let size = || {
                let log = u32::from(*head.get(EXT4_SUPER + 12)?);
                let blocks = u64::from(u32_at(EXT4_SUPER + 36)?);
                EROFS_LOG_BLOCKS.contains(&log).then(|| blocks << log)
            };
            return Some(Self {
                name: "erofs",
                size_bytes: size(),
            });
        }
        head.starts_with(b"XFSB").then_some(Self {
            name: "xfs",
            size_bytes: None,
        })
    }

    /// The option that keeps a read-only mount from replaying the journal, i.e. from writing.
    pub fn no_recovery_option(self) -> &'static str {
        match self.name {
            "ext4" => "noload",
            "xfs" => "norecovery",
            _ => "",
        }
    }

    /// Mounts `device` on `target`.
    ///
    /// # Errors
    /// The system's.
    pub fn mount(self, device: &Path, target: &Path, flags: MountFlags, options: &str) -> Result<()> {
        mount_fs(device, target, self.name, flags, options)
    }
}

/// mount(2) with the action in the error.
///
/// # Errors
/// The system's.
pub fn mount_fs(source: &Path, target: &Path, fs_type: &str, flags: MountFlags, options: &str) -> Result<()> {
    let action = || {
        format!(
            "mounting {} on {} as {fs_type} ({options:?})",
            source.display(),
            target.display()
        )
    };
    let data = CString::new(options).map_err(io::Error::from).during(action)?;
    mount(source, target, fs_type, flags, data.as_c_str()).during(action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(writes: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; PROBE_BYTES];
        for (at, bytes) in writes {
            head[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    #[test]
    fn superblocks_are_told_apart() {
        let name = |writes: &[(usize, &[u8])]| Filesystem::from_head(&head(writes)).map(|found| found.name);
        assert_eq!(name(&[(1024 + 0x38, &[0x53, 0xEF])]), Some("ext4"));
        assert_eq!(name(&[(1024, &[0xE2, 0xE1, 0xF5, 0xE0])]), Some("erofs"));
        assert_eq!(name(&[(0, b"XFSB")]), Some("xfs"));
        assert_eq!(name(&[]), None);
    }

    #[test]
    fn sizes_are_blocks_times_block_size_and_absurd_ones_are_none() {
        let size = |writes: &[(usize, &[u8])]| {
            Filesystem::from_head(&head(writes)).and_then(|found| found.size_bytes)
        };
        let ext4: (usize, &[u8]) = (1024 + 0x38, &[0x53, 0xEF]);
        let low: (usize, &[u8]) = (1024 + 4, &[3, 0, 0, 0]);
        let high: (usize, &[u8]) = (1024 + 0x150, &[1]);
        assert_eq!(size(&[ext4, low, (1024 + 0x18, &[2])]), Some(3 * 4096));
        assert_eq!(size(&[ext4, low, high]), Some(3 * 1024));
        assert_eq!(
            size(&[ext4, low, high, (1024 + 0x60, &[0x80])]),
            Some(((1 << 32) + 3) * 1024)
        );
        assert_eq!(size(&[ext4, low, (1024 + 0x18, &[7])]), None);
        let all_high: (usize, &[u8]) = (1024 + 0x150, &[0xFF; 4]);
        assert_eq!(
            size(&[ext4, all_high, (1024 + 0x60, &[0x80]), (1024 + 0x18, &[6])]),
            None
        );
        let erofs: (usize, &[u8]) = (1024, &[0xE2, 0xE1, 0xF5, 0xE0]);
        assert_eq!(
            size(&[erofs, (1024 + 12, &[12]), (1024 + 36, &[0, 0, 0, 0xFF])]),
            Some(0xFF00_0000 << 12)
        );
        assert_eq!(size(&[erofs, (1024 + 12, &[200])]), None);
    }

    #[test]
    fn a_short_device_is_no_file_system() {
        assert_eq!(Filesystem::from_head(&[0; 100]), None);
        assert_eq!(Filesystem::from_head(&[]), None);
    }
}
