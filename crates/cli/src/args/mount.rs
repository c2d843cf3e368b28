//! Mounts of a running container.

use clap::{Args, Subcommand};

use super::Format;

#[derive(Debug, Subcommand)]
pub(crate) enum MountCommand {
    /// Attach a directory, a file or a disk, and mount it in the running container.
    #[command(
        after_help = "Example:\n  cofferdam mount add web --mount type=virtual-disk,source=data.vhdx,destination=/data"
    )]
    Add(MountAddArgs),
    /// Unmount it, and give back what it took. One that is in use stays.
    #[command(after_help = "Example:\n  cofferdam mount remove web /data")]
    Remove {
        /// The container.
        #[arg(value_name = "ID")]
        id: String,
        /// Where it is in the container.
        #[arg(value_name = "DESTINATION")]
        destination: String,
    },
    /// The mounts that were added.
    #[command(after_help = "Example:\n  cofferdam mount list web --format json")]
    List {
        /// The container.
        #[arg(value_name = "ID")]
        id: String,
        /// What to print.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

#[derive(Debug, Args)]
pub(crate) struct MountAddArgs {
    /// The container.
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// The mount, as docker writes it: `type=bind,source=DIR,destination=PATH[,readonly]`. Types are those of a
    /// bundle: bind (the default), virtual-disk, automanage-virtual-disk, physical-disk.
    #[arg(long, value_name = "MOUNT")]
    pub(crate) mount: String,
}
