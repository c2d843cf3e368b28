//! Ending the VM.

use std::{process, thread, time::Duration};

use rustix::system::{RebootCommand, reboot};

/// Powers the VM off; as a plain process, just ends. What has been written reaches the disks first.
pub(crate) fn off() -> ! {
    if process::id() != 1 {
        process::exit(0);
    }
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        tracing::error!(%error, "the VM cannot be powered off");
    }
    // PID 1 must not end.
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
