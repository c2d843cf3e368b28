//! `cofferdam layer`: disks for layers, outside any image.

mod convert;
mod scratch;

use crate::{args::LayerCommand, exit::Exit};

/// Runs the command.
pub(crate) fn execute(command: &LayerCommand) -> Exit {
    let done = match command {
        LayerCommand::Convert(args) => convert::execute(args),
        LayerCommand::Scratch(args) => scratch::execute(args),
    };
    Exit::of(done)
}
