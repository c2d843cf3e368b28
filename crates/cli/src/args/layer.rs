//! Layers: made of archives, and scratch disks.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::values::size_bytes;

#[derive(Debug, Subcommand)]
pub(crate) enum LayerCommand {
    /// Make a layer's disk of a tar archive, compressed or not.
    ///
    /// The same archive and options give the same bytes. Whiteouts become those of overlay. `-` reads standard input.
    #[command(
        after_help = "Examples:\n  cofferdam layer convert rootfs.tar.gz base/layer.vhd\n  \
                            cofferdam layer convert --verity --format erofs rootfs.tar layer.vhd"
    )]
    Convert(ConvertArgs),
    /// Make an empty, writable disk: a container's scratch space.
    ///
    /// The file is sparse and grows with what is written. VHDX, or what the name says: .vhdx, .raw, .img.
    #[command(after_help = "Example:\n  cofferdam layer scratch --size 10G scratch/sandbox.vhdx")]
    Scratch(ScratchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// The archive: tar, plain or compressed with gzip or zstd.
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: PathBuf,

    /// The layer: a fixed VHD, or with a name that ends in .raw or .img the file system alone. Its directory is made if
    /// it is not there; a file of that name is replaced once the layer is complete.
    #[arg(value_name = "LAYER")]
    pub(crate) layer: PathBuf,

    /// The file system.
    #[arg(long, value_enum, default_value_t = LayerFormat::Ext4)]
    pub(crate) format: LayerFormat,

    /// Add a dm-verity tree: the VM then checks every block that it reads.
    #[arg(long)]
    pub(crate) verity: bool,

    /// The largest archive that is taken, decompressed: what stops a bomb. In bytes or with K, M, G or T.
    #[arg(long, value_name = "SIZE", default_value = "128G", value_parser = size_bytes)]
    pub(crate) max_size: u64,

    /// Print what was made as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,

    /// Print nothing but errors.
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ScratchArgs {
    /// The disk to make. It must not be there yet.
    #[arg(value_name = "DISK")]
    pub(crate) disk: PathBuf,

    /// How large the disk is, in bytes or with K, M, G or T (powers of 1024).
    #[arg(short, long, value_name = "SIZE", default_value = "10G", value_parser = size_bytes)]
    pub(crate) size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayerFormat {
    /// ext4.
    Ext4,
    /// EROFS, uncompressed.
    Erofs,
}
