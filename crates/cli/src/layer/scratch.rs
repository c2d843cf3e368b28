//! `cofferdam layer scratch`: an empty, writable disk.

use anyhow::Result;
use cofferdam_layer::scratch;

use crate::{args::ScratchArgs, progress};

/// Runs the command.
pub(super) fn execute(args: &ScratchArgs) -> Result<()> {
    let made = scratch(&args.disk, args.size)?;
    println!(
        "{}: {} for data, {} on this host",
        args.disk.display(),
        progress::bytes(made.disk_bytes),
        progress::bytes(made.allocated_bytes)
    );
    Ok(())
}
