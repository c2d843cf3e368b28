//! From the plans of a pod's containers to what is shown of them together.

use cofferdam_ledger::{Ledger, address::Limits};
use cofferdam_plan::Plan;
use cofferdam_reserve::{PodRefusal, reserve_pod};
use serde::Serialize;
use serde_json::Value;

use crate::{
    ExplainError,
    document::{LimitsDocument, Resources},
    explanation::{Shown, resources},
    hcs::{self, HcsRequest},
    rows::Row,
    steps, table,
};

/// Why the plans of a pod cannot be carried out together on an empty VM.
#[derive(Debug, thiserror::Error)]
pub enum ExplainPodError {
    /// They do not fit, or contradict each other.
    #[error(transparent)]
    Refused(#[from] PodRefusal),
    /// As [`ExplainError::Stuck`].
    #[error(transparent)]
    Stuck(#[from] ExplainError),
}

impl ExplainPodError {
    /// The container at fault, if one is: see [`PodRefusal::container`].
    #[must_use]
    pub fn container(&self) -> Option<usize> {
        match self {
            Self::Refused(refusal) => Some(refusal.container),
            Self::Stuck(_) => None,
        }
    }

    /// The mount of that container at fault, if one is.
    #[must_use]
    pub fn mount_index(&self) -> Option<usize> {
        match self {
            Self::Refused(refusal) => refusal.mount_index,
            Self::Stuck(_) => None,
        }
    }
}

/// What allocation of a pod's containers would do, ready to be shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PodExplanation {
    /// Each container, in the order of the plans.
    pub containers: Vec<ContainerExplanation>,
    /// How much of the VM they take together. What they share counts once.
    pub limits: LimitsDocument,
    #[serde(skip)]
    share_count: usize,
    #[serde(skip)]
    hcs: Vec<HcsRequest>,
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContainerExplanation {
    /// The rewritten OCI spec.
    pub spec: Value,
    /// What the container takes, or shares with one before it.
    pub resources: Resources,
    #[serde(skip)]
    rows: Vec<Row>,
}

impl PodExplanation {
    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        // As for [`crate::Explanation::json`].
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// A table a container, each under a heading with its name, and the use of all against the limits. `names` are
    /// parallel to the containers: what the user calls them, such as the paths of their bundles.
    #[must_use]
    pub fn table(&self, names: &[String]) -> String {
        let parts: Vec<_> = self
            .containers
            .iter()
            .enumerate()
            .map(|(n, container)| {
                let name = names.get(n).map(|name| format!(": {name}")).unwrap_or_default();
                (format!("Container {n}{name}"), container.rows.as_slice())
            })
            .collect();
        table::render_pod(&parts, &self.limits, self.share_count)
    }

    /// The HCS documents of all containers, in an order they may be sent in. A device that several share is added
    /// once, by the first of them.
    #[must_use]
    pub fn hcs(&self) -> &[HcsRequest] {
        &self.hcs
    }

    /// The HCS documents as a JSON array.
    #[must_use]
    pub fn hcs_json(&self) -> String {
        // As for [`crate::Explanation::json`].
        serde_json::to_string_pretty(&self.hcs).unwrap_or_default()
    }
}

/// Explains the plans of several containers of one empty VM with `limits`. Each plan has a container root of its own.
///
/// # Errors
/// [`ExplainPodError`]; nothing has been touched in any case.
pub fn explain_pod(plans: &[Plan], limits: Limits) -> Result<PodExplanation, ExplainPodError> {
    let mut ledger = Ledger::new(limits);
    let reserved = reserve_pod(&mut ledger, plans)?;
    let mut shown = Shown::of(&ledger);
    let mut containers = Vec::with_capacity(plans.len());
    for (plan, reserved) in plans.iter().zip(&reserved) {
        let resources = resources(plan, &ledger, &shown.devices, reserved, false)?;
        let rows = shown.rows(plan, &resources, reserved, false);
        containers.push(ContainerExplanation {
            spec: plan.spec.clone(),
            resources,
            rows,
        });
    }
    let mut all = Vec::new();
    for reserved in &reserved {
        all.extend(steps::all(&mut ledger, reserved)?);
    }
    Ok(PodExplanation {
        containers,
        limits: shown.limits,
        share_count: shown.shares.len(),
        hcs: hcs::documents(&all),
    })
}
