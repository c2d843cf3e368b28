//! Where a shim's own words go: the FIFO `log` of its bundle, which containerd reads into its log.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, sync::Mutex};

use tracing::level_filters::LevelFilter;

/// Begins logging. Without the FIFO nothing is logged: the shim has no other place for it.
pub(crate) fn begin(debug: bool) {
    // For reading too, so that it opens whether or not somebody reads, and stays when they go. What does not fit is
    // dropped: a log that nobody reads stops nothing.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let fifo = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nonblocking)
        .open("log");
    let Ok(fifo) = fifo else { return };
    let level = if debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(Mutex::new(fifo))
        .init();
}
