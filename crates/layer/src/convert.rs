//! From an archive to a layer's file.

use std::{fs::File, io::BufRead, os::unix::fs::FileExt};

use cofferdam_archive::{Archive, Digest};

use crate::{
    LayerError,
    assemble::Assembly,
    erofs, ext4,
    space::{BLOCK, Space},
    verity, vhd,
};

/// The file system of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filesystem {
    /// ext4, without a journal.
    #[default]
    Ext4,
    /// EROFS, uncompressed.
    Erofs,
}

/// What the file system is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Container {
    /// A fixed VHD: the file system, then a footer of 512 bytes.
    #[default]
    Vhd,
    /// Nothing.
    Raw,
}

/// How a layer is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Its file system.
    pub filesystem: Filesystem,
    /// What is around it.
    pub container: Container,
    /// Whether a dm-verity tree follows the file system.
    pub verity: bool,
}

/// A layer that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Entries of the archive.
    pub entries: u64,
    /// Size of the file system, in bytes.
    pub filesystem_bytes: u64,
    /// Size of the file, in bytes; less is allocated where it has holes.
    pub file_bytes: u64,
    /// Root hash of the dm-verity tree (SHA-256).
    pub verity_root: Option<Digest>,
    /// Extended attributes that were left out: those of namespaces that Linux does not have.
    pub ignored_xattrs: u64,
}

/// Writes the archive's entries into `output`, an empty file, as a layer: whiteouts become those of overlay. The same
/// archive and options give the same bytes. On an error the file's content means nothing.
///
/// # Errors
/// What is wrong with the archive, what the file system cannot hold, and the system's reason for not writing.
pub fn convert<R: BufRead>(
    archive: &mut Archive<R>,
    output: &File,
    options: &Options,
) -> Result<Layer, LayerError> {
    let (bounds, sparse_unit): (_, fn(u64) -> u64) = match options.filesystem {
        Filesystem::Ext4 => (ext4::bounds(), ext4::sparse_unit),
        Filesystem::Erofs => (erofs::bounds(), erofs::sparse_unit),
    };
    let mut assembly = Assembly::new(Space::new(output, bounds), sparse_unit)?;
    let mut entries = 0;
    while let Some(entry) = archive.next_entry()? {
        assembly.add(&entry, archive)?;
        entries += 1;
    }
    assembly.close()?;
    let blocks = match options.filesystem {
        Filesystem::Ext4 => ext4::finish(&mut assembly)?,
        Filesystem::Erofs => erofs::finish(&mut assembly)?,
    };
    let filesystem_bytes = blocks * BLOCK;
    output.set_len(filesystem_bytes)?;
    let mut file_bytes = filesystem_bytes;
    let mut verity_root = None;
    if options.verity {
        let tree = verity::append(output, blocks, [0; 16])?;
        file_bytes = tree.end * BLOCK;
        verity_root = Some(Digest::from_bytes(tree.root));
    }
    if options.container == Container::Vhd {
        output.write_all_at(&vhd::footer(file_bytes, [0; 16]), file_bytes)?;
        file_bytes += vhd::FOOTER_BYTES as u64;
    }
    Ok(Layer {
        entries,
        filesystem_bytes,
        file_bytes,
        verity_root,
        ignored_xattrs: assembly.ignored_xattrs(),
    })
}
