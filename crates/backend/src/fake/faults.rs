//! Faults, by kind of step and by count.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::steps::{GuestStep, HostStep};

/// Where a fault strikes, or where a step took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultPoint {
    /// A step of the host.
    Host(HostStep),
    /// A request to the guest.
    Guest(GuestStep),
    /// Any step of the host.
    AnyHost,
    /// Any request to the guest.
    AnyGuest,
    /// Any step at all: with a count, this walks through everything an operation does.
    Any,
}

impl FaultPoint {
    fn covers(self, step: Self) -> bool {
        match self {
            Self::Any => true,
            Self::AnyHost => matches!(step, Self::Host(_)),
            Self::AnyGuest => matches!(step, Self::Guest(_)),
            exact => exact == step,
        }
    }
}

/// What a fault does to its step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not done, and fails with this message.
    Fail(String),
    /// It is done, and yet reported as failed with this message.
    FailAfter(String),
    /// It is held back until [`Faults::release`], then done.
    Hang,
    /// The VM dies instead.
    Die,
    /// It is done, then the VM dies before it is reported.
    DieAfter,
    /// It is done after this time.
    Delay(Duration),
}

#[derive(Debug)]
struct Armed {
    point: FaultPoint,
    /// Steps at `point` to let pass before striking.
    skip: u64,
    /// Strikes at every further step too.
    always: bool,
    fault: Fault,
}

/// The faults of one fake VM. Counts start when a fault is armed: the first is the next step at its point.
#[derive(Debug)]
pub struct Faults {
    armed: Mutex<Vec<Armed>>,
    releases: watch::Sender<u64>,
    hanging: watch::Sender<usize>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            armed: Mutex::default(),
            releases: watch::channel(0).0,
            hanging: watch::channel(0).0,
        }
    }
}

impl Faults {
    /// Arms `fault` for the `nth` step at `point` from now, 1 being the next.
    pub fn inject(&self, point: FaultPoint, nth: u64, fault: Fault) {
        self.armed().push(Armed {
            point,
            skip: nth.saturating_sub(1),
            always: false,
            fault,
        });
    }

    /// Arms `fault` for every step at `point` from now on, until [`Faults::clear`].
    pub fn inject_always(&self, point: FaultPoint, fault: Fault) {
        self.armed().push(Armed {
            point,
            skip: 0,
            always: true,
            fault,
        });
    }

    /// The `nth` step at `point` from now is not done and fails with `message`.
    pub fn fail(&self, point: FaultPoint, nth: u64, message: &str) {
        self.inject(point, nth, Fault::Fail(message.to_owned()));
    }

    /// The `nth` step at `point` from now waits for [`Faults::release`].
    pub fn hang(&self, point: FaultPoint, nth: u64) {
        self.inject(point, nth, Fault::Hang);
    }

    /// The VM dies instead of the `nth` step at `point` from now.
    pub fn die(&self, point: FaultPoint, nth: u64) {
        self.inject(point, nth, Fault::Die);
    }

    /// The `nth` step at `point` from now takes `time` longer.
    pub fn delay(&self, point: FaultPoint, nth: u64, time: Duration) {
        self.inject(point, nth, Fault::Delay(time));
    }

    /// Lets every step go on that hangs now.
    pub fn release(&self) {
        self.releases.send_modify(|count| *count += 1);
    }

    /// Resolves when at least `count` steps hang.
    pub async fn hanging(&self, count: usize) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.hanging.subscribe().wait_for(|now| *now >= count).await;
    }

    /// Disarms everything. What hangs already goes on hanging.
    pub fn clear(&self) {
        self.armed().clear();
    }

    /// How many faults are armed and have not struck yet; those that strike always are not counted. A test that
    /// walks through an operation is at its end when its fault is still here.
    pub fn pending(&self) -> usize {
        self.armed().iter().filter(|armed| !armed.always).count()
    }

    fn armed(&self) -> MutexGuard<'_, Vec<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault that strikes a step, if any: the first armed for it. All others that cover it count it.
    pub(super) fn strike(&self, step: FaultPoint) -> Option<Fault> {
        let mut struck = None;
        self.armed().retain_mut(|armed| {
            if !armed.point.covers(step) {
                return true;
            }
            if armed.skip > 0 {
                armed.skip -= 1;
                return true;
            }
            if struck.is_some() {
                return true;
            }
            struck = Some(armed.fault.clone());
            armed.always
        });
        struck
    }

    /// Waits for [`Faults::release`].
    pub(super) async fn wait_for_release(&self) {
        struct Hanging<'a>(&'a watch::Sender<usize>);
        impl Drop for Hanging<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|count| *count -= 1);
            }
        }
        let mut releases = self.releases.subscribe();
        self.hanging.send_modify(|count| *count += 1);
        let _hanging = Hanging(&self.hanging);
        let _ = releases.changed().await;
    }
}
