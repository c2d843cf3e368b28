//! How long each phase of a run took, for `--timings`.

use std::{
    fmt,
    time::{Duration, Instant},
};

use cofferdam_vm::BootTimes;

/// The phases of one run, in order.
#[derive(Debug)]
pub(crate) struct Timings {
    begun: Instant,
    reached: Vec<(&'static str, Duration)>,
}

impl Timings {
    pub(crate) fn start() -> Self {
        Self {
            begun: Instant::now(),
            reached: Vec::new(),
        }
    }

    /// A phase is over now.
    pub(crate) fn reached(&mut self, phase: &'static str) {
        self.reached.push((phase, self.begun.elapsed()));
    }

    /// The phases of the boot are over; they ended now.
    pub(crate) fn booted(&mut self, times: BootTimes) {
        let started = self.begun.elapsed().saturating_sub(times.negotiated);
        self.reached
            .push(("hypervisor answers", started + times.hypervisor));
        self.reached
            .push(("agent's first message", started + times.agent));
    }
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = Duration::ZERO;
        for (phase, at) in &self.reached {
            let took = at.saturating_sub(before);
            writeln!(
                f,
                "{phase:<24}{:>9.3} s  (+{:.3})",
                at.as_secs_f64(),
                took.as_secs_f64()
            )?;
            before = *at;
        }
        Ok(())
    }
}
