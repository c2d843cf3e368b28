//! Signal dispositions that Rust's start-up changed.
#![allow(
    unsafe_code,
    reason = "no safe wrapper sets a disposition; this only restores the system's own"
)]

/// Gives SIGPIPE its default action back. Rust ignores it, and an ignored signal stays ignored across exec: every
/// program of every container would inherit that. Call it only while there is one thread.
pub(crate) fn restore_defaults() {
    // SAFETY: SIG_DFL installs no handler, so nothing of ours can run in signal context.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}
