//! What cargo itself says of a test run, line by line.

use std::fmt;

/// The sums over all test programs of a run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub passed: u64,
    pub failed: u64,
    /// Tests that no ring runs: ignored ones outside the targets `vm_*`, which the VM ring runs.
    pub skipped: u64,
    /// Whether the program at hand is such a target.
    in_vm_target: bool,
    /// Test programs that cargo started, and those that reported their result: one that crashes reports none.
    started: u64,
    reported: u64,
    /// Names of the failed tests.
    pub failures: Vec<String>,
}

impl Counts {
    /// Takes in one line of `cargo test`.
    pub(crate) fn line(&mut self, line: &str) {
        let trimmed = line.trim_start();
        if trimmed.starts_with("Running ") || trimmed.starts_with("Doc-tests ") {
            self.started += 1;
            let file = trimmed
                .split_whitespace()
                .nth(1)
                .and_then(|path| path.rsplit('/').next());
            self.in_vm_target = file.is_some_and(|file| file.starts_with("vm_"));
        } else if let Some(result) = trimmed.strip_prefix("test result: ") {
            self.reported += 1;
            for part in result.split(['.', ';']) {
                let mut words = part.split_whitespace();
                if let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) {
                    match what {
                        "passed" => self.passed += count,
                        "failed" => self.failed += count,
                        "ignored" if !self.in_vm_target => self.skipped += count,
                        _ => {}
                    }
                }
            }
        } else if let Some(name) = trimmed
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }

    /// Adds another run's sums.
    pub(crate) fn add(&mut self, other: &Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.started += other.started;
        self.reported += other.reported;
        self.failures.extend(other.failures.iter().cloned());
    }

    /// How many test programs started and never reported a result.
    pub(crate) fn crashed(&self) -> u64 {
        self.started.saturating_sub(self.reported)
    }

    /// Whether every test that ran passed and every program reported.
    pub(crate) fn clean(&self) -> bool {
        self.failed == 0 && self.crashed() == 0
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        if self.crashed() > 0 {
            write!(f, ", {} test programs ended without a result", self.crashed())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str) -> Counts {
        let mut counts = Counts::default();
        text.lines().for_each(|line| counts.line(line));
        counts
    }

    #[test]
    fn programs_and_doc_tests_are_summed() {
        let sum = counts(
            "     Running unittests src/lib.rs (target/debug/deps/a-1)\n\
             test x ... ok\n\
             test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.11s\n\
             \n   Doc-tests a\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\n",
        );
        assert_eq!((sum.passed, sum.failed), (14, 0));
        assert!(sum.clean());
        assert_eq!(sum.to_string(), "14 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn vm_tests_are_not_skipped_they_have_a_ring_of_their_own() {
        let sum = counts(
            "     Running tests/vm_run.rs (target/debug/deps/vm_run-1)\n\
             test result: ok. 0 passed; 0 failed; 9 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(sum.to_string(), "0 passed, 0 failed");
    }

    #[test]
    fn failures_are_counted_and_named() {
        let sum = counts(
            "     Running tests/x.rs (target/debug/deps/x-1)\n\
             test slots::a_slot_is_free_again ... FAILED\n\
             test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!((sum.passed, sum.failed), (3, 1));
        assert_eq!(sum.failures, ["slots::a_slot_is_free_again"]);
        assert!(!sum.clean());
    }

    #[test]
    fn a_program_that_crashes_is_not_overlooked() {
        let sum = counts("     Running tests/x.rs (target/debug/deps/x-1)\ntest a ... \n");
        assert_eq!(sum.crashed(), 1);
        assert!(!sum.clean());
        assert!(
            sum.to_string().contains("1 test programs ended without a result"),
            "{sum}"
        );
    }
}
