//! Limits of containers: an OCI document's `linux.resources` in the cgroup of a container, or of all of them.
//!
//! The agent writes them itself, not the runtime library: the same conversion holds when a container is created and
//! when its limits change while it runs, and an error names the member of the document. [`resources`] converts
//! without touching anything, [`apply`] writes, [`ids`] has the lists of CPUs and memory nodes. [`freezer`] and [`oom`]
//! are the other things a cgroup does to its processes.

mod apply;
pub(super) mod freezer;
mod ids;
pub(super) mod oom;
mod resources;

use std::path::Path;

use serde_json::Value;

pub(super) use self::apply::Facts;
use self::resources::Plan;
use crate::error::{AgentError, Result};

/// Sets the limits of a container that has just been created. What of them means nothing in this VM is returned, and
/// does not hold.
pub(super) fn set_at_creation(cgroup: &Path, limits: &Value) -> Result<Vec<String>> {
    let Plan {
        writes, not_usable, ..
    } = resources::plan(limits, &Facts::of(cgroup))?;
    apply::apply(cgroup, &writes)?;
    // The first process is there already, and is killed where not even it fits.
    if oom::kills_of(cgroup) > 0 {
        let limit = limits.pointer("/memory/limit").unwrap_or(&Value::Null);
        return Err(AgentError::Invalid(format!(
            "linux.resources.memory.limit {limit}: it is too little for a process to start"
        )));
    }
    Ok(not_usable)
}

/// Changes limits while processes run: all of what is asked for, or nothing.
pub(super) fn change(cgroup: &Path, limits: &Value) -> Result<()> {
    let facts = Facts::of(cgroup);
    let plan = resources::plan(limits, &facts)?;
    if !plan.not_usable.is_empty() {
        return Err(AgentError::Invalid(plan.not_usable.join("; ")));
    }
    if let Some(least) = plan.at_least
        && facts.memory_in_use > least
    {
        return Err(AgentError::Invalid(format!(
            "linux.resources.memory.limit {least}: {} bytes are in use already",
            facts.memory_in_use
        )));
    }
    apply::apply(cgroup, &plan.writes)
}
