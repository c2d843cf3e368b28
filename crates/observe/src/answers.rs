//! An owner that is looked at and checked, and whose containers are managed elsewhere.

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_owner::control::{Answers, Question};
use cofferdam_pod::Pod;
use serde_json::Value;

use crate::{check, inspect};

/// Answers [`Question::Inspect`] and [`Question::Check`] about a pod, and refuses what would change it.
pub struct LookedAt {
    pod: Arc<Pod>,
    refusal: &'static str,
}

impl LookedAt {
    /// For this pod. `refusal` says who changes it.
    #[must_use]
    pub fn new(pod: Arc<Pod>, refusal: &'static str) -> Self {
        Self { pod, refusal }
    }
}

#[async_trait]
impl Answers for LookedAt {
    async fn answer(&self, question: Question) -> Result<Value, String> {
        let answered = match question {
            Question::Inspect => serde_json::to_value(inspect(&self.pod).await),
            Question::Check { repair } => {
                let checked = check(self.pod.vm(), repair).await;
                serde_json::to_value(checked.map_err(|error| error.to_string())?)
            }
            _ => return Err(self.refusal.to_owned()),
        };
        answered.map_err(|error| error.to_string())
    }
}
