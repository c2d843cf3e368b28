//! The size of a process's console.

use std::os::fd::OwnedFd;

use serde_json::Value;

/// The size a document asks for its console. It is a wish: a console without it works too.
pub(super) fn set_initial_size(console: &OwnedFd, process: &Value) {
    let side = |name: &str| u16::try_from(process["consoleSize"][name].as_u64()?).ok();
    if let (Some(height), Some(width)) = (side("height"), side("width")) {
        set_size(console, height, width);
    }
}

pub(super) fn set_size(console: &OwnedFd, height: u16, width: u16) {
    let size = rustix::termios::Winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let _ = rustix::termios::tcsetwinsize(console, size);
}
