//! `cofferdam image pull`.

use anyhow::{Result, bail};
use cofferdam_store::Store;

use crate::args::PullArgs;

/// Runs the command.
pub(super) fn execute(_store: &Store, args: &PullArgs) -> Result<()> {
    bail!("{}: not fetched", args.image)
}
