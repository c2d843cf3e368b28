//! The utility VM of a container.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::memory_bytes;

#[derive(Debug, Args)]
#[command(next_help_heading = "Utility VM")]
pub(crate) struct VmArgs {
    /// The VM's memory, in bytes or with K, M or G (powers of 1024).
    #[arg(short, long, value_name = "SIZE", default_value = "512M", value_parser = memory_bytes)]
    pub(crate) memory: u64,

    /// The VM's processors.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) cpus: u32,

    /// Where the kernel and the initramfs are: a directory with `small/` or `debian/` in it, or with the two files
    /// themselves. Looked for beside the program when absent.
    #[arg(long, value_name = "DIR", env = "COFFERDAM_BOOT_DIR")]
    pub(crate) boot_dir: Option<PathBuf>,

    /// The kernel: an uncompressed vmlinux with a PVH entry, or a bzImage.
    #[arg(long, value_name = "FILE", requires = "initramfs")]
    pub(crate) kernel: Option<PathBuf>,

    /// The initramfs with the guest agent as /init.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initramfs: Option<PathBuf>,

    /// How the VM's processors run: auto takes KVM where it really works.
    #[arg(long, value_enum, default_value_t = Accelerator::Auto, env = "COFFERDAM_ACCEL")]
    pub(crate) accel: Accelerator,

    /// The QEMU program.
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: PathBuf,

    /// Persistent-memory devices for read-only layers; the rest, and by default all, go on SCSI.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=128))]
    pub(crate) vpmem_count: u32,

    /// When something fails, leave the VM running and say how to look at it.
    #[arg(long)]
    pub(crate) keep_on_failure: bool,

    /// Say on standard error how long each phase took.
    #[arg(long)]
    pub(crate) timings: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accelerator {
    /// KVM if the processor and /dev/kvm allow it, emulation otherwise.
    Auto,
    /// KVM, or fail.
    Kvm,
    /// Emulation.
    Tcg,
}
