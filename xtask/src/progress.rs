//! What a person sees while xtask works: one line a step, a spinner or bar with the elapsed time on a terminal, plain
//! lines elsewhere. Everything goes to standard error, so that standard output carries only results.

use std::{
    fmt::Display,
    io::IsTerminal,
    time::{Duration, Instant},
};

use console::style;
use indicatif::{ProgressBar, ProgressStyle};

/// A step under way. Dropped before [`Step::done`], it is shown as failed.
pub(crate) struct Step {
    label: String,
    bar: Option<ProgressBar>,
    started: Instant,
    finished: bool,
}

impl Step {
    /// Starts a step and shows it.
    pub(crate) fn start(label: impl Into<String>) -> Self {
        let label = label.into();
        let bar = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner()
                .with_style(spinner_style())
                .with_prefix(label.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            Some(bar)
        } else {
            eprintln!("   {label} ...");
            None
        };
        Step {
            label,
            bar,
            started: Instant::now(),
            finished: false,
        }
    }

    /// What the step is at now; seen on a terminal only.
    pub(crate) fn at(&self, what: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.into());
        }
    }

    /// How far the step is, in units of its own; seen on a terminal only.
    pub(crate) fn advance(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            if bar.length().is_none() {
                bar.set_style(bar_style());
            }
            bar.set_length(total.max(done));
            bar.set_position(done);
        }
    }

    /// Ends the step well and returns the time it took.
    pub(crate) fn done(mut self, outcome: impl Display) -> Duration {
        self.finished = true;
        let elapsed = self.started.elapsed();
        self.close(
            &style("ok").green().for_stderr().to_string(),
            &outcome.to_string(),
            elapsed,
        );
        elapsed
    }

    fn close(&self, mark: &str, outcome: &str, elapsed: Duration) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let colon = if outcome.is_empty() { "" } else { ": " };
        eprintln!("{mark} {}{colon}{outcome} ({})", self.label, seconds(elapsed));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            self.close(
                &style("!!").red().for_stderr().to_string(),
                "failed",
                self.started.elapsed(),
            );
        }
    }
}

/// A line of its own between steps.
pub(crate) fn note(text: impl Display) {
    eprintln!("   {text}");
}

/// A line that must not be overlooked.
pub(crate) fn warn(text: impl Display) {
    eprintln!("{} {text}", style("warning:").yellow().bold().for_stderr());
}

/// A heading above a group of steps.
pub(crate) fn heading(text: impl Display) {
    eprintln!("{}", style(text).bold().for_stderr());
}

/// The failure that ends the command, with its causes.
pub(crate) fn report_failure(error: &anyhow::Error) {
    eprintln!("{} {error}", style("error:").red().bold().for_stderr());
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}

/// A time for a person: `0.42 s`, `7.3 s`, `3 min 05 s`.
pub(crate) fn seconds(time: Duration) -> String {
    let s = time.as_secs_f64();
    if s >= 90.0 {
        format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
    } else if s >= 9.95 {
        format!("{s:.0} s")
    } else if s >= 1.0 {
        format!("{s:.1} s")
    } else {
        format!("{s:.2} s")
    }
}

/// A size for a person, in binary units.
pub(crate) fn bytes(size: u64) -> String {
    const KIB: f64 = 1024.0;
    let size_f = size as f64;
    if size_f >= KIB * KIB {
        format!("{:.1} MiB", size_f / KIB / KIB)
    } else if size_f >= KIB {
        format!("{:.0} KiB", size_f / KIB)
    } else {
        format!("{size} B")
    }
}

fn spinner_style() -> ProgressStyle {
    template("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}")
}

fn bar_style() -> ProgressStyle {
    template("{spinner} {prefix} [{elapsed}] {bar:30} {pos}/{len} {wide_msg:.dim}")
}

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_two_figures_and_switch_to_minutes() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.42 s");
        assert_eq!(seconds(Duration::from_millis(7_260)), "7.3 s");
        assert_eq!(seconds(Duration::from_millis(42_600)), "43 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }

    #[test]
    fn sizes_are_in_binary_units() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(8 * 1024), "8 KiB");
        assert_eq!(bytes(3 * 1024 * 1024 / 2), "1.5 MiB");
    }
}
