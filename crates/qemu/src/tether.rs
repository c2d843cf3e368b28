//! Ties a child's life to the thread that starts it, passes open files on to it, and parts it from the host's network.
#![allow(
    unsafe_code,
    reason = "the parent-death signal can only be asked for, and files only be passed on, between fork and exec"
)]

use std::{
    io,
    os::{
        fd::{BorrowedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use rustix::{
    io::{Errno, FdFlags, fcntl_setfd},
    process::{Signal, getpid, getppid, set_parent_process_death_signal, setsid},
    thread::{UnshareFlags, unshare_unsafe},
};

/// What a child has of this process's.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// Open files, under the numbers they have here.
    pub(crate) files: Vec<RawFd>,
    /// Whether it does not have the network.
    pub(crate) apart: bool,
}

/// Makes the child of `command` die when the thread that spawns it ends, however it ends, and puts it in a
/// session of its own. The spawning thread has to live as long as the child is wanted (prctl(2),
/// `PR_SET_PDEATHSIG`). The child gets the files of its surroundings under the same numbers; they have to be open when it is
/// spawned. No other child gets them, as only this one's copies are marked.
///
/// One that is `apart` has a network namespace of its own, without anything in it, where this process may make one.
pub(crate) fn tie_to_calling_thread(command: &mut Command, surroundings: Surroundings) {
    let Surroundings { files, apart } = surroundings;
    let parent = getpid();
    let prepare = move || -> io::Result<()> {
        setsid()?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above; then no signal will ever come.
        if getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if apart {
            // SAFETY: a child has one thread, and nothing in it relies on the network that it parts from.
            match unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
                // Only the superuser may. It is one more wall, not the one that stands between guest and host.
                Ok(()) | Err(Errno::PERM | Errno::NOSYS | Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for number in &files {
            if *number < 0 {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            // SAFETY: used for this one call only, which fails if nothing is open under the number. It is not -1.
            let file = unsafe { BorrowedFd::borrow_raw(*number) };
            fcntl_setfd(file, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made: system calls, no allocation (the
    // list was made before; an io::Error from an errno or a kind is a plain value), no lock, no other thread's state.
    unsafe { command.pre_exec(prepare) };
}
