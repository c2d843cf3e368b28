//! `cofferdam layer scratch`: an empty, writable disk.

use anyhow::{Result, bail};

use crate::args::ScratchArgs;

/// Runs the command.
pub(super) fn execute(args: &ScratchArgs) -> Result<()> {
    bail!("{}: not made", args.disk.display())
}
