//! `cofferdam cp`.

use std::ffi::OsString;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// Keep owners, and copy devices, set-ID bits and attributes as they are.
    #[arg(short, long)]
    pub(crate) archive: bool,

    /// Follow a symbolic link at SRC, instead of copying it.
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,

    /// Show no progress.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// What is copied: a path, ID:PATH, or - for an archive on standard input.
    #[arg(value_name = "SRC")]
    pub(crate) source: OsString,

    /// Where it goes: a path, ID:PATH, or - for an archive on standard output.
    #[arg(value_name = "DST")]
    pub(crate) destination: OsString,
}
