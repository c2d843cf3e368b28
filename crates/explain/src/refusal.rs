//! Why there is no plan, for a script.

use std::error::Error;

use cofferdam_plan::{PlanError, SpecError};
use serde::Serialize;

use crate::{ExplainError, ExplainPodError};

/// `{"error": {"message": …, "container": …, "mountIndex": …}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusalDocument {
    error: Inner,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Inner {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount_index: Option<usize>,
}

impl RefusalDocument {
    /// Any error, with the mount at fault if one is.
    #[must_use]
    pub fn new(error: &(dyn Error + 'static), mount_index: Option<usize>) -> Self {
        Self {
            error: Inner {
                message: chain(error),
                container: None,
                mount_index,
            },
        }
    }

    /// The same as the refusal of one container of several: the message names it first.
    #[must_use]
    pub fn of_container(mut self, container: usize) -> Self {
        self.error.message = format!("container {container}: {}", self.error.message);
        self.error.container = Some(container);
        self
    }

    /// The whole chain of causes in one line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.error.message
    }

    /// The container at fault, where several were planned together.
    #[must_use]
    pub fn container(&self) -> Option<usize> {
        self.error.container
    }

    /// The mount at fault, if one is.
    #[must_use]
    pub fn mount_index(&self) -> Option<usize> {
        self.error.mount_index
    }

    /// The document, for standard output.
    #[must_use]
    pub fn json(&self) -> String {
        // Strings and numbers only: nothing of it can fail to be written.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl From<&SpecError> for RefusalDocument {
    fn from(error: &SpecError) -> Self {
        Self::new(error, None)
    }
}

impl From<&PlanError> for RefusalDocument {
    fn from(error: &PlanError) -> Self {
        Self::new(error, error.mount_index)
    }
}

impl From<&ExplainError> for RefusalDocument {
    fn from(error: &ExplainError) -> Self {
        Self::new(error, error.mount_index())
    }
}

impl From<&ExplainPodError> for RefusalDocument {
    fn from(error: &ExplainPodError) -> Self {
        let mut document = Self::new(error, error.mount_index());
        document.error.container = error.container();
        document
    }
}

/// An error and its causes. A cause that the text ends with already is not repeated.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("middle: {0}")]
    struct Middle(#[source] std::io::Error);

    #[test]
    fn every_cause_is_told_once() {
        let error = Outer(Middle(std::io::Error::other("inner")));
        let document = RefusalDocument::new(&error, Some(3));
        assert_eq!(
            serde_json::to_value(&document).unwrap(),
            serde_json::json!({"error": {"message": "outer: middle: inner", "mountIndex": 3}})
        );
        let without_mount = RefusalDocument::new(&error, None).json();
        assert!(!without_mount.contains("mountIndex"), "{without_mount}");
    }
}
