//! What cargo itself says of a test run, line by line.

use std::fmt;

/// The sums over all test programs of a run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
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
        } else if let Some(result) = trimmed.strip_prefix("test result: ") {
            self.reported += 1;
            for part in result.split(['.', ';']) {
                let mut words = part.split_whitespace();
                if let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) {
                    match what {
                        "passed" => self.passed += count,
                        "failed" => self.failed += count,
                        "ignored" => self.ignored += count,
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
        self.ignored += other.ignored;
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
        assert_eq!((sum.passed, sum.failed, sum.ignored), (14, 0, 1));
        assert!(sum.clean());
        assert_eq!(sum.to_string(), "14 passed, 0 failed");
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
