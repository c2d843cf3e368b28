//! Ties a child's life to the thread that starts it.
#![allow(
    unsafe_code,
    reason = "the parent-death signal can only be asked for between fork and exec"
)]

use std::{io, os::unix::process::CommandExt, process::Command};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal, setsid};

/// Makes the child of `command` die when the thread that spawns it ends, however it ends, and puts it in a
/// session of its own. The spawning thread has to live as long as the child is wanted (prctl(2),
/// `PR_SET_PDEATHSIG`).
pub(crate) fn tie_to_calling_thread(command: &mut Command) {
    let parent = getpid();
    let prepare = move || -> io::Result<()> {
        setsid()?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above; then no signal will ever come.
        if getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made: three system calls, no allocation
    // (an io::Error from an errno or a kind is a plain value), no lock, no other thread's state.
    unsafe { command.pre_exec(prepare) };
}
