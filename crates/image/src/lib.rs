//! What kind of disk image a file is, told from its own bytes before anything else sees it.
//!
//! Whatever attaches it is given the format by name, so nothing ever guesses. The rule for the format is in
//! docs/decisions/0061-image-formats.md: a container format (VHD, VHDX, qcow2) is used only where the file's
//! name claims one and its bytes confirm it. A guest can write any byte into a raw image but cannot rename it.
//!
//! The formats ([`vhd`], [`vhdx`], [`qcow2`]) parse bytes and do no I/O; [`probe()`] reads, and reads little.
//!
//! ```
//! use cofferdam_image::{ImageFormat, probe};
//!
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("disk.raw");
//! std::fs::write(&path, [0; 4096])?;
//! let facts = probe(&path).expect("it can be read");
//! assert_eq!((facts.format, facts.virtual_size_bytes), (ImageFormat::Raw, 4096));
//! assert_eq!(facts.problem_as_image(), None);
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod crc32c;
mod probe;
mod qcow2;
mod vhd;
mod vhdx;

use std::{io, path::PathBuf};

pub use probe::probe;
pub use vhd::checksum as vhd_checksum;

/// What speaks against a file as a disk image, in words.
///
/// # Errors
/// What is wrong with its bytes, or why they could not be read.
pub fn check(path: &std::path::Path) -> Result<(), String> {
    match probe(path) {
        Ok(facts) => facts.problem.map_or(Ok(()), Err),
        Err(error) => Err(error.to_string()),
    }
}

/// The format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// The file's bytes are the disk's bytes.
    Raw,
    /// The disk's bytes, then a 512-byte footer (VHD specification, "Hard Disk Footer Format").
    VhdFixed,
    /// A VHD that grows as it is written.
    VhdDynamic,
    /// VHDX (MS-VHDX).
    Vhdx,
    /// qcow2, versions 2 and 3.
    Qcow2,
    /// No image: a block device of the host.
    BlockDevice,
}

impl std::fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::VhdFixed => "fixed VHD",
            Self::VhdDynamic => "dynamic VHD",
            Self::Vhdx => "VHDX",
            Self::Qcow2 => "qcow2",
            Self::BlockDevice => "block device",
        })
    }
}

/// What a file says about the disk in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// The format it is attached with.
    pub format: ImageFormat,
    /// Size of the disk the guest sees, in bytes. 0 where a problem hides it.
    pub virtual_size_bytes: u64,
    /// Size of the file itself, in bytes; of a block device, the device's size.
    pub file_size_bytes: u64,
    /// Why it cannot be attached, in words for a person; `None` if it can.
    pub problem: Option<String>,
}

impl ImageFacts {
    /// What speaks against attaching it as a block device of the host.
    #[must_use]
    pub fn problem_as_device(&self) -> Option<String> {
        match self.format {
            ImageFormat::BlockDevice => self.problem.clone(),
            _ => Some("it is no block device of the host".to_owned()),
        }
    }

    /// What speaks against attaching it as a disk image.
    #[must_use]
    pub fn problem_as_image(&self) -> Option<String> {
        match self.format {
            ImageFormat::BlockDevice => Some(
                "it is a block device of the host, not a disk image: attach it as a physical disk".to_owned(),
            ),
            _ => self.problem.clone(),
        }
    }
}

/// Why a file could not be examined at all.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The system refused to open or read it.
    #[error("could not read disk image {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a pipe or the like.
    #[error("{path} is neither a regular file nor a block device")]
    WrongKind {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a big-endian number at `offset`, or `None` past the end.
fn be_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(array(bytes, offset)?))
}

fn be_u64(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_be_bytes(array(bytes, offset)?))
}

fn le_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(array(bytes, offset)?))
}

fn le_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(array(bytes, offset)?))
}

fn le_u64(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(array(bytes, offset)?))
}

/// `N` bytes at `offset`, or `None` past the end.
fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}
