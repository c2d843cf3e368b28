//! Ending of processes: the one place that waits for children.
//!
//! As PID 1 (or a subreaper) the agent inherits every orphan of the VM. One thread waits for all of them; the end
//! of a process somebody registered goes to its handler, any other is only cleared away. A process cannot end
//! unnoticed: children are started and registered under the lock the reaping needs, and an adopted process is
//! registered while the runtime that made it still holds it.

use std::{
    collections::HashMap,
    io,
    process::Command,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process, wait, waitid},
};

/// Called once with the status.
type OnExit = Box<dyn FnOnce(Exit) + Send>;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Its exit code; 128 + the signal's number if one ended it.
    pub(crate) code: u32,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
}

/// Waits for all children.
#[derive(Default)]
pub(crate) struct Reaper {
    handlers: Mutex<HashMap<i32, OnExit>>,
    /// Signalled when there may be a child again.
    registered: Condvar,
}

impl Reaper {
    /// Starts the waiting thread. There must be one reaper in the process.
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let reaper = Arc::new(Self::default());
        let waiting = Arc::clone(&reaper);
        thread::Builder::new()
            .name("reaper".into())
            .stack_size(super::STACK_BYTES)
            .spawn(move || waiting.run())?;
        Ok(reaper)
    }

    /// Starts `command`; `on_exit` gets its exit code, 128 + the signal's number if it was killed.
    pub(crate) fn spawn(
        &self,
        command: &mut Command,
        on_exit: impl FnOnce(u32) + Send + 'static,
    ) -> io::Result<u32> {
        let mut handlers = self.lock();
        // Dropping the handle neither waits nor kills.
        let pid = command.spawn()?.id();
        handlers.insert(pid.cast_signed(), Box::new(move |exit: Exit| on_exit(exit.code)));
        self.registered.notify_all();
        Ok(pid)
    }

    /// Takes over process `pid`, which is or will become a child of this process and has not been waited for.
    pub(crate) fn adopt(&self, pid: u32, on_exit: impl FnOnce(Exit) + Send + 'static) {
        self.lock().insert(pid.cast_signed(), Box::new(on_exit));
        self.registered.notify_all();
    }

    /// Signals a registered process that has not been waited for, so never a stranger with a reused pid. Returns
    /// whether there was such a process.
    pub(crate) fn signal(&self, pid: u32, signal: Signal) -> io::Result<bool> {
        let handlers = self.lock();
        let pid = pid.cast_signed();
        match Pid::from_raw(pid) {
            Some(target) if handlers.contains_key(&pid) => match kill_process(target, signal) {
                Err(Errno::SRCH) => Ok(false),
                outcome => Ok(outcome.map(|()| true)?),
            },
            _ => Ok(false),
        }
    }

    /// Looks at process `pid` while nobody waits for it, so that the pid is no stranger's. `None` if it is not
    /// registered, or has been waited for.
    pub(crate) fn while_unreaped<T>(&self, pid: u32, look: impl FnOnce() -> T) -> Option<T> {
        let handlers = self.lock();
        handlers.contains_key(&pid.cast_signed()).then(look)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, OnExit>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            // Only look: reaping must happen under the lock.
            match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(_) => self.reap(),
                Err(Errno::CHILD) => self.wait_for_children(),
                Err(_) => {}
            }
        }
    }

    fn reap(&self) {
        let mut ended = Vec::new();
        {
            let mut handlers = self.lock();
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                if let Some(handler) = handlers.remove(&pid.as_raw_nonzero().get()) {
                    ended.push((handler, exit_of(status)));
                }
            }
        }
        for (handler, exit) in ended {
            handler(exit);
        }
    }

    fn wait_for_children(&self) {
        let handlers = self.lock();
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        if matches!(waitid(WaitId::All, look), Err(Errno::CHILD)) {
            drop(
                self.registered
                    .wait(handlers)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    let signal = status.terminating_signal();
    let code = status.exit_status().or(signal.map(|signal| 128 + signal));
    Exit {
        code: code.unwrap_or(255).unsigned_abs(),
        signal,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    /// One test for everything: a process has one reaper.
    #[test]
    fn exit_codes_reach_their_handlers_and_failed_starts_are_errors() {
        let reaper = Reaper::start().unwrap();
        let (sender, ended) = mpsc::channel();
        for index in 0..50_u32 {
            let sender = sender.clone();
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(format!("exit {index}"));
            reaper
                .spawn(&mut command, move |code| sender.send((index, code)).unwrap())
                .unwrap();
        }
        for _ in 0..50 {
            let (index, code) = ended.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!(index, code);
        }

        let failed = reaper.spawn(&mut Command::new("/no/such/program"), |_| {});
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::NotFound);

        let mut command = Command::new("/bin/sleep");
        let pid = reaper
            .spawn(command.arg("60"), move |code| sender.send((99, code)).unwrap())
            .unwrap();
        assert!(reaper.signal(pid, Signal::KILL).unwrap());
        assert_eq!(ended.recv_timeout(Duration::from_secs(20)).unwrap(), (99, 137));
        assert!(
            !reaper.signal(pid, Signal::KILL).unwrap(),
            "a process that was waited for is never signalled"
        );
        assert!(
            !reaper.signal(1, Signal::CONT).unwrap(),
            "a stranger is never signalled"
        );
    }
}
