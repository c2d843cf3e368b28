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
/// EROFS: magic at the same superblock offset.
const EROFS_MAGIC: u32 = 0xE0F5_E1E2;

/// What a superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filesystem {
    /// The type's name for mount(2).
    pub name: &'static str,
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
            return Some(Self { name: "ext4" });
        }
        if u32_at(EXT4_SUPER) == Some(EROFS_MAGIC) {
            return Some(Self { name: "erofs" });
        }
        if head.starts_with(b"XFSB") {
            return Some(Self { name: "xfs" });
        }
        None
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
    fn a_short_device_is_no_file_system() {
        assert_eq!(Filesystem::from_head(&[0; 100]), None);
        assert_eq!(Filesystem::from_head(&[]), None);
    }
}
