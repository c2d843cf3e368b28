//! The caller's terminal: raw while a container with a terminal runs, and put back whatever happens.

use std::io::{self, IsTerminal};

use rustix::termios::{self, OptionalActions, Termios};

/// The terminal's earlier settings; dropping it restores them.
#[must_use]
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Makes standard input raw, so that every key, Ctrl-C included, reaches the container.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // What was typed ahead goes: an end of input among it would come out as a character.
        termios::tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing can be done about a failure: the terminal has gone.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Rows and columns of the terminal on standard input or output; `None` where neither is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(io::stdin())
        .or_else(|_| termios::tcgetwinsize(io::stdout()))
        .ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Whether standard input is a terminal.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal()
}
