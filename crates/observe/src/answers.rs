//! [`Question::Inspect`] answered, in front of whoever answers the rest.

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_owner::control::{Answers, Question};
use cofferdam_pod::Pod;
use serde_json::Value;

use crate::inspect;

/// Answers an inspection of this pod itself, and leaves every other question to `A`.
pub struct Inspecting<A> {
    pod: Arc<Pod>,
    others: A,
}

impl<A> Inspecting<A> {
    /// For this pod.
    pub fn new(pod: Arc<Pod>, others: A) -> Self {
        Self { pod, others }
    }
}

#[async_trait]
impl<A: Answers> Answers for Inspecting<A> {
    async fn answer(&self, question: Question) -> Result<Value, String> {
        match question {
            Question::Inspect => {
                serde_json::to_value(inspect(&self.pod).await).map_err(|error| error.to_string())
            }
            other => self.others.answer(other).await,
        }
    }
}

/// Refuses every question, with where to put it instead: for an owner whose containers are managed over another API.
pub struct OnlyInspected(
    /// The refusal.
    pub &'static str,
);

#[async_trait]
impl Answers for OnlyInspected {
    async fn answer(&self, _: Question) -> Result<Value, String> {
        Err(self.0.to_owned())
    }
}
