//! What running would take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ImageRunArgs;

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The bundle: a directory with config.json. Relative paths in it start here. Without one, and without --spec,
    /// the current directory. Several are the containers of one pod: planned for one VM, they share what they have in
    /// common, and all of them fit or none.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Vec<PathBuf>,

    /// The spec's file, instead of a bundle, or after the bundles of a pod. Relative paths in it start in its
    /// directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) spec: Vec<PathBuf>,

    /// An image of the store, run with the options of `cofferdam run`, instead of a bundle. Nothing is pulled.
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["bundle", "spec"])]
    pub(crate) image: Option<String>,

    /// What to print: a table, one JSON object, or the HCS documents in the order they would be sent.
    #[arg(long, value_enum, default_value_t = PlanFormat::Table)]
    pub(crate) format: PlanFormat,

    /// Where the container lives inside the VM; /run/gcs/c/1 by default. Those of a pod live in /run/gcs/c/1,
    /// /run/gcs/c/2 and so on, in hexadecimal.
    #[arg(long, value_name = "PATH")]
    pub(crate) container_root: Option<String>,

    /// Plan for process isolation: no utility VM. For a single container only.
    #[arg(long)]
    pub(crate) no_vm: bool,

    /// Persistent-memory devices of the VM.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=128))]
    pub(crate) vpmem_count: u32,

    /// Largest file, in bytes, for a persistent-memory device.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 30)]
    pub(crate) vpmem_size: u64,

    /// SCSI controllers of the VM, 64 disks each.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(0..=4))]
    pub(crate) scsi_controllers: u8,

    #[command(flatten)]
    pub(crate) run: ImageRunArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// For people.
    Table,
    /// For scripts.
    Json,
    /// `ModifySettingRequest` documents of the Host Compute Service.
    Hcs,
}
