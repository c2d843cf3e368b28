//! Processes the host knows: their output, their exit codes and who waits for them (GCS bridge protocol §6, §8).

pub(crate) mod reaper;
pub(crate) mod relay;
pub(crate) mod stdio;
pub(crate) mod timer;
pub(crate) mod vm;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use reaper::Exit;
use relay::Ended;
use rustix::process::Signal;

/// Stack of the agent's threads. They only move bytes and parse documents; pages are used as they are touched.
pub(crate) const STACK_BYTES: usize = 256 * 1024;
/// Processes that have ended and may still be asked about; the oldest are forgotten.
const REMEMBERED: usize = 1024;
/// Most waits outstanding for one process.
const MAX_WAITERS: usize = 256;

type OnDone = Box<dyn FnOnce(u32) + Send>;

/// One process. It is done when it has ended *and* its output has been handed over.
pub(crate) struct Process {
    pid: OnceLock<u32>,
    container: Option<String>,
    pub(crate) ended: Ended,
    state: Mutex<State>,
}

struct State {
    exit_code: Option<u32>,
    /// Whether it was a SIGKILL that ended it.
    killed: bool,
    /// Whether the host, or the agent, asked for a SIGKILL.
    kill_asked: bool,
    /// Output relays still running, and one for the process itself.
    outstanding: usize,
    done: bool,
    waiters: BTreeMap<u64, OnDone>,
    next_waiter: u64,
    console: Option<Arc<OwnedFd>>,
}

impl Process {
    /// A process about to start, of a container or (`None`) of the VM. `on_done` is told first of all waiters.
    pub(crate) fn new(container: Option<String>, on_done: Option<OnDone>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            pid: OnceLock::new(),
            container,
            ended: Ended::new()?,
            state: Mutex::new(State {
                exit_code: None,
                killed: false,
                kill_asked: false,
                outstanding: 1,
                done: false,
                waiters: on_done.map(|on_done| (0, on_done)).into_iter().collect(),
                next_waiter: 1,
                console: None,
            }),
        }))
    }

    /// Its pid; 0 before it has one.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.get().copied().unwrap_or(0)
    }

    /// Whose it is; `None` for the VM's.
    pub(crate) fn container(&self) -> Option<&str> {
        self.container.as_deref()
    }

    /// Says which pid it got.
    pub(crate) fn started(&self, pid: u32) {
        // Set once, by whoever started it.
        let _ = self.pid.set(pid);
    }

    /// Says that it has ended.
    pub(crate) fn exited(&self, code: u32) {
        self.lock().exit_code = Some(code);
        self.ended.set();
        self.part_done();
    }

    /// The same for a process whose whole status is known.
    pub(crate) fn ended_with(&self, exit: Exit) {
        // Before the code: whoever sees that it has ended sees this too.
        self.lock().killed = exit.signal == Some(Signal::KILL.as_raw());
        self.exited(exit.code);
    }

    /// Says that it is about to be killed because somebody wants it. What has ended was not killed by that.
    pub(crate) fn kill_is_asked(&self) {
        let mut state = self.lock();
        state.kill_asked |= state.exit_code.is_none();
    }

    /// Whether it was killed, and nobody had asked for it: so by the kernel.
    pub(crate) fn was_killed_unasked(&self) -> bool {
        let state = self.lock();
        state.killed && !state.kill_asked
    }

    /// Adds an output relay to wait for. `false` if the process is done already.
    pub(crate) fn add_part(&self) -> bool {
        let mut state = self.lock();
        if !state.done {
            state.outstanding += 1;
        }
        !state.done
    }

    /// Starts the process and connects its streams in `start`. It is not done before that is over, however soon it
    /// ends: what it has written is still to be taken.
    pub(crate) fn held<T>(&self, start: impl FnOnce() -> T) -> T {
        let held = self.add_part();
        let outcome = start();
        if held {
            self.part_done();
        }
        outcome
    }

    /// Says that a relay, or the process itself, has finished.
    pub(crate) fn part_done(&self) {
        let mut state = self.lock();
        state.outstanding = state.outstanding.saturating_sub(1);
        if state.outstanding > 0 || state.done {
            return;
        }
        state.done = true;
        state.console = None;
        let code = state.exit_code.unwrap_or(255);
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        for waiter in waiters.into_values() {
            waiter(code);
        }
    }

    /// Whether it has ended, whatever became of its output.
    pub(crate) fn has_exited(&self) -> bool {
        self.lock().exit_code.is_some()
    }

    /// Whether it has ended and its output has been handed over.
    pub(crate) fn is_done(&self) -> bool {
        self.lock().done
    }

    /// Calls `waiter` with the exit code once the process is done, at once if it is. The key cancels it; `None`
    /// if it was called at once. `Err` if too many wait already.
    pub(crate) fn wait(&self, waiter: impl FnOnce(u32) + Send + 'static) -> Result<Option<u64>, ()> {
        let mut state = self.lock();
        if state.done {
            let code = state.exit_code.unwrap_or(255);
            drop(state);
            waiter(code);
            return Ok(None);
        }
        if state.waiters.len() >= MAX_WAITERS {
            return Err(());
        }
        let key = state.next_waiter;
        state.next_waiter += 1;
        state.waiters.insert(key, Box::new(waiter));
        Ok(Some(key))
    }

    /// Takes a waiter back. `false` if it has been called.
    pub(crate) fn cancel_wait(&self, key: u64) -> bool {
        self.lock().waiters.remove(&key).is_some()
    }

    /// Gives it a console.
    pub(crate) fn set_console(&self, console: Arc<OwnedFd>) {
        self.lock().console = Some(console);
    }

    /// Its console, while it has one.
    pub(crate) fn console(&self) -> Option<Arc<OwnedFd>> {
        self.lock().console.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All processes by pid.
#[derive(Default)]
pub(crate) struct Processes {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_pid: BTreeMap<u32, Arc<Process>>,
    order: VecDeque<u32>,
}

impl Processes {
    /// Adds a process under its pid; an older one with the same pid has long ended.
    pub(crate) fn insert(&self, process: Arc<Process>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = process.pid();
        if table.by_pid.insert(pid, process).is_none() {
            table.order.push_back(pid);
        }
        let mut kept = table.order.len();
        while table.by_pid.len() > REMEMBERED && kept > 0 {
            kept -= 1;
            let Some(oldest) = table.order.pop_front() else {
                break;
            };
            if table.by_pid.get(&oldest).is_some_and(|process| process.is_done()) {
                table.by_pid.remove(&oldest);
            } else if table.by_pid.contains_key(&oldest) {
                table.order.push_back(oldest);
            }
        }
    }

    /// The process with this pid.
    pub(crate) fn get(&self, pid: u32) -> Option<Arc<Process>> {
        self.table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .by_pid
            .get(&pid)
            .cloned()
    }

    /// Forgets the ended processes of a deleted container.
    pub(crate) fn forget_container(&self, container: &str) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table
            .by_pid
            .retain(|_, process| process.container() != Some(container) || !process.is_done());
        let Table { by_pid, order } = &mut *table;
        order.retain(|pid| by_pid.contains_key(pid));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_process_is_done_only_after_its_output_and_all_waiters_are_told_once() {
        let (sender, told) = mpsc::channel();
        let first = sender.clone();
        let process = Process::new(
            None,
            Some(Box::new(move |code| first.send(("owner", code)).unwrap())),
        )
        .unwrap();
        assert!(process.add_part());
        for name in ["a", "b"] {
            let sender = sender.clone();
            process
                .wait(move |code| sender.send((name, code)).unwrap())
                .unwrap();
        }
        process.exited(3);
        assert!(process.has_exited() && !process.is_done());
        assert!(told.try_recv().is_err());
        process.part_done();
        assert_eq!(
            told.try_iter().collect::<Vec<_>>(),
            [("owner", 3), ("a", 3), ("b", 3)]
        );
        assert_eq!(
            process.wait(move |code| sender.send(("late", code)).unwrap()),
            Ok(None)
        );
        assert_eq!(told.recv().unwrap(), ("late", 3));
        assert!(!process.add_part());
    }

    #[test]
    fn only_a_kill_that_nobody_asked_for_was_the_kernels() {
        let ended = |signal: Option<i32>, asked: bool| {
            let process = Process::new(None, None).unwrap();
            if asked {
                process.kill_is_asked();
            }
            process.ended_with(Exit { code: 137, signal });
            process.was_killed_unasked()
        };
        assert!(ended(Some(9), false));
        assert!(!ended(Some(9), true));
        assert!(!ended(Some(15), false));
        assert!(!ended(None, false), "a shell's status for a killed child");
        let process = Process::new(None, None).unwrap();
        process.ended_with(Exit {
            code: 137,
            signal: Some(9),
        });
        process.kill_is_asked();
        assert!(process.was_killed_unasked(), "asked for after the end");
    }

    #[test]
    fn a_process_that_ends_while_it_is_started_is_still_connected() {
        let process = Process::new(None, None).unwrap();
        process.held(|| {
            process.exited(0);
            assert!(process.has_exited() && !process.is_done());
            assert!(process.add_part(), "its output can be relayed");
        });
        assert!(!process.is_done(), "the relay has not finished");
        process.part_done();
        assert!(process.is_done());
    }

    #[test]
    fn a_cancelled_waiter_is_never_called() {
        let process = Process::new(None, None).unwrap();
        let key = process.wait(|_| panic!("cancelled")).unwrap().unwrap();
        assert!(process.cancel_wait(key));
        assert!(!process.cancel_wait(key));
        process.exited(0);
    }

    #[test]
    fn waiters_are_bounded() {
        let process = Process::new(None, None).unwrap();
        for _ in 0..MAX_WAITERS {
            process.wait(|_| {}).unwrap();
        }
        assert!(process.wait(|_| {}).is_err());
    }

    #[test]
    fn ended_processes_are_forgotten_oldest_first_and_running_ones_never() {
        let processes = Processes::default();
        for pid in 0..2 * REMEMBERED as u32 {
            let process = Process::new(Some("c".into()), None).unwrap();
            process.started(pid);
            if pid != 5 {
                process.exited(0);
            }
            processes.insert(process);
        }
        assert!(processes.get(5).is_some());
        assert!(processes.get(6).is_none());
        assert!(processes.get(2 * REMEMBERED as u32 - 1).is_some());
        processes.forget_container("c");
        assert!(processes.get(2 * REMEMBERED as u32 - 1).is_none());
        assert!(processes.get(5).is_some());
    }
}
