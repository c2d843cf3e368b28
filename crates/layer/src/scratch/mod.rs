//! Scratch disks: an empty, writable ext4 in a sparse file, calculated rather than formatted.
//!
//! [`filesystem`] says which few blocks of an empty file system are not zero; [`vhdx`], or a raw file, holds them.

mod checksum;
mod filesystem;
mod vhdx;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Bytes at a position of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    at: u64,
    bytes: Vec<u8>,
}

/// The smallest and the largest scratch disk, in bytes: below there is no room for a journal, above block numbers have
/// more than 32 bits.
pub const SCRATCH_BYTES: std::ops::RangeInclusive<u64> = 16 << 20..=16 << 40;

/// A scratch disk that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scratch {
    /// Size of the disk, in bytes.
    pub disk_bytes: u64,
    /// Size of the file, in bytes.
    pub file_bytes: u64,
    /// What of it the host has allocated, in bytes.
    pub allocated_bytes: u64,
}

/// Why a scratch disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// Its size.
    #[error("a scratch disk has 16 MiB to 16 TiB, in whole blocks of 4 KiB; {0} bytes are not")]
    Size(u64),
    /// Its name says another format.
    #[error("{0}: a scratch disk is a .vhdx, or a .raw or .img")]
    Name(PathBuf),
    /// There is a file of that name: it may hold a container's data.
    #[error("{0} is there already, and is not overwritten")]
    Exists(PathBuf),
    /// The system refused.
    #[error("{step} {path}: {source}")]
    Write {
        /// What was being done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// Makes an empty disk of `size_bytes` at `path`, in the format that its name says. The file is complete when it has its
/// name; on an error there is none.
///
/// # Errors
/// A size or name that cannot be, a file that is there, and the system's.
pub fn scratch(path: &Path, size_bytes: u64) -> Result<Scratch, ScratchError> {
    if !SCRATCH_BYTES.contains(&size_bytes) || !size_bytes.is_multiple_of(4096) {
        return Err(ScratchError::Size(size_bytes));
    }
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| ScratchError::Write { step, path, source }
    };
    let is_vhdx = match path.extension().and_then(|extension| extension.to_str()) {
        Some("vhdx") => true,
        Some("raw" | "img") => false,
        _ => return Err(ScratchError::Name(path.to_owned())),
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory).map_err(failed("making", directory))?;
    let file = tempfile::Builder::new()
        .prefix(".scratch-")
        .permissions(PermissionsExt::from_mode(0o600))
        .tempfile_in(directory)
        .map_err(failed("making a file in", directory))?;
    let ids = Ids::random().map_err(failed("random numbers for", path))?;
    let pieces = filesystem::empty(size_bytes, &ids);
    let written = if is_vhdx {
        vhdx::write(file.as_file(), size_bytes, &pieces, &ids)
    } else {
        write_raw(file.as_file(), size_bytes, &pieces)
    };
    written.map_err(failed("writing", path))?;
    let file = file
        .persist_noclobber(path)
        .map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => ScratchError::Exists(path.to_owned()),
            _ => failed("naming", path)(error.error),
        })?;
    let facts = file.metadata().map_err(failed("reading", path))?;
    Ok(Scratch {
        disk_bytes: size_bytes,
        file_bytes: facts.len(),
        allocated_bytes: facts.blocks() * 512,
    })
}

fn write_raw(file: &File, size: u64, pieces: &[Piece]) -> io::Result<()> {
    file.set_len(size)?;
    pieces
        .iter()
        .try_for_each(|piece| file.write_all_at(&piece.bytes, piece.at))
}

/// Numbers that no other disk has.
#[derive(Debug)]
struct Ids {
    filesystem: [u8; 16],
    hash_seed: [u8; 16],
    file_write: [u8; 16],
    data_write: [u8; 16],
    disk: [u8; 16],
}

impl Ids {
    fn random() -> io::Result<Self> {
        let mut bytes = [0; 80];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
        }
        let id = |number: usize| {
            let mut id = [0; 16];
            id.copy_from_slice(&bytes[number * 16..][..16]);
            // RFC 9562 §5.4: version 4.
            id[6] = id[6] & 0x0F | 0x40;
            id[8] = id[8] & 0x3F | 0x80;
            id
        };
        Ok(Self {
            filesystem: id(0),
            hash_seed: id(1),
            file_write: id(2),
            data_write: id(3),
            disk: id(4),
        })
    }
}
