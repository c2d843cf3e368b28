//! Things to do later, on one thread.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Done at its time; must not block.
type Action = Box<dyn FnOnce() + Send>;

/// One thread that waits for the earliest action.
#[derive(Default)]
pub(crate) struct Timer {
    actions: Mutex<Actions>,
    changed: Condvar,
}

#[derive(Default)]
struct Actions {
    /// By time, then by order of arrival.
    waiting: BTreeMap<(Instant, u64), Action>,
    arrived: u64,
}

impl Timer {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let timer = Arc::new(Self::default());
        let running = Arc::clone(&timer);
        thread::Builder::new()
            .name("timer".into())
            .stack_size(super::STACK_BYTES)
            .spawn(move || running.run())?;
        Ok(timer)
    }

    /// Does `action` after `delay`.
    pub(crate) fn after(&self, delay: Duration, action: impl FnOnce() + Send + 'static) {
        let mut actions = self.actions.lock().unwrap_or_else(PoisonError::into_inner);
        actions.arrived += 1;
        let order = actions.arrived;
        actions
            .waiting
            .insert((Instant::now() + delay, order), Box::new(action));
        self.changed.notify_one();
    }

    fn run(&self) {
        let mut guard = self.actions.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            match guard.waiting.first_key_value().map(|((at, _), _)| *at) {
                None => guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
                Some(at) if at > now => {
                    guard = self
                        .changed
                        .wait_timeout(guard, at - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
                Some(_) => {
                    let Some((_, action)) = guard.waiting.pop_first() else {
                        continue;
                    };
                    drop(guard);
                    action();
                    guard = self.actions.lock().unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn actions_happen_in_the_order_of_their_times() {
        let timer = Timer::start().unwrap();
        let (sender, happened) = mpsc::channel();
        for (delay, name) in [(60, "late"), (20, "early"), (40, "middle")] {
            let sender = sender.clone();
            timer.after(Duration::from_millis(delay), move || sender.send(name).unwrap());
        }
        let order: Vec<_> = (0..3)
            .map(|_| happened.recv_timeout(Duration::from_secs(5)).unwrap())
            .collect();
        assert_eq!(order, ["early", "middle", "late"]);
    }
}
