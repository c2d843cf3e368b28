//! What a run found, for people and for programs.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

/// How one case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Result {
    /// The agent keeps the rule.
    Passed,
    /// It does not.
    Failed,
    /// It could not be tried; nothing is known.
    NotTried,
}

impl Result {
    fn text(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::NotTried => "not tried",
        }
    }
}

/// One case of a run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The case's name.
    pub case: &'static str,
    /// The protocol's section.
    pub section: &'static str,
    /// How it ended.
    pub result: Result,
    /// How long it took.
    pub time_ms: u64,
    /// What was seen, or why it was not tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its cases, in the order they ran.
    pub cases: Vec<Row>,
}

impl Report {
    /// How many cases ended so.
    #[must_use]
    pub fn count(&self, result: Result) -> usize {
        self.cases.iter().filter(|row| row.result == result).count()
    }

    /// Whether the agent passed; with `all`, only if everything could be tried.
    #[must_use]
    pub fn is_good(&self, all: bool) -> bool {
        self.count(Result::Failed) == 0
            && self.count(Result::Passed) > 0
            && (!all || self.count(Result::NotTried) == 0)
    }

    /// One row of the table.
    #[must_use]
    pub fn line(row: &Row, width: usize) -> String {
        let time = Duration::from_millis(row.time_ms);
        let mut text = format!(
            "{:<width$}  {:<9}  {:>7.2} s",
            row.case,
            row.result.text(),
            time.as_secs_f64()
        );
        if let Some(reason) = &row.reason {
            let _ = match row.result {
                Result::NotTried => write!(text, "  {reason}"),
                _ => write!(text, "\n    §{}: {reason}", row.section),
            };
        }
        text
    }

    /// The last line of the table.
    #[must_use]
    pub fn summary(&self) -> String {
        let time_ms: u64 = self.cases.iter().map(|row| row.time_ms).sum();
        format!(
            "{} passed, {} failed, {} not tried, in {:.1} s",
            self.count(Result::Passed),
            self.count(Result::Failed),
            self.count(Result::NotTried),
            Duration::from_millis(time_ms).as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(results: &[Result]) -> Report {
        let row = |result: &Result| Row {
            case: "frames/x",
            section: "2",
            result: *result,
            time_ms: 1500,
            reason: (*result != Result::Passed).then(|| "why".to_owned()),
        };
        Report {
            cases: results.iter().map(row).collect(),
        }
    }

    #[test]
    fn what_was_not_tried_is_not_passed_and_nothing_tried_is_not_good() {
        assert!(report(&[Result::Passed, Result::NotTried]).is_good(false));
        assert!(!report(&[Result::Passed, Result::NotTried]).is_good(true));
        assert!(!report(&[Result::NotTried]).is_good(false));
        assert!(!report(&[]).is_good(false));
        assert!(!report(&[Result::Passed, Result::Failed]).is_good(false));
        let summary = report(&[Result::Passed, Result::NotTried, Result::Failed]).summary();
        assert_eq!(summary, "1 passed, 1 failed, 1 not tried, in 4.5 s");
    }

    #[test]
    fn a_row_says_why() {
        let text = |result| Report::line(&report(&[result]).cases[0], 10);
        assert_eq!(text(Result::Passed), "frames/x    passed        1.50 s");
        assert_eq!(text(Result::NotTried), "frames/x    not tried     1.50 s  why");
        assert!(text(Result::Failed).ends_with("\n    §2: why"));
    }
}
