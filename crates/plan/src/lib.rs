//! What a container needs of its utility VM: a pure function of its OCI spec, of facts about the host's files, and of
//! nothing else.
//!
//! [`Spec::parse`] reads a spec, [`wanted`] names the host paths whose [`Facts`] are needed, and [`plan`] returns the
//! rewritten spec with the container's [`Needs`]. [`plan_mount`] does it for one mount more, of a container that runs. The caller's spec is never changed. Slots are not chosen here: that
//! is the ledger's part.

mod error;
mod facts;
mod further;
mod mounts;
mod need;
mod root;
mod spec;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use crate::{
    error::{PlanError, Refusal},
    facts::{Facts, FileFacts, FileId, FileKind},
    further::{MountPlan, MountRequest, container_destination, plan_mount, wanted_by_mount},
    mounts::SANDBOX_PREFIX,
    need::{DiskNeed, DiskSource, LayerNeed, Layers, Needs, ShareNeed},
    spec::{Mount, Spec, SpecError},
};

/// The name of a read-only layer's image in its folder.
pub const LAYER_FILE: &str = "layer.vhd";
/// The name of the scratch image in its folder.
pub const SCRATCH_FILE: &str = "sandbox.vhdx";

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct PlanRequest<'a> {
    /// The spec, as its host wrote it.
    pub spec: &'a Spec,
    /// Relative paths of the spec start here.
    pub bundle: &'a Path,
    /// Where the container will live inside the VM, such as `/run/gcs/c/1`.
    pub container_root: &'a str,
    /// No utility VM: process isolation.
    pub process_isolation: bool,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The spec for the VM.
    pub spec: Value,
    /// Where the container will live inside the VM.
    pub container_root: String,
    /// What has to be there before it is created.
    pub needs: Needs,
}

/// The host paths a plan has to know about, resolved.
#[must_use]
pub fn wanted(spec: &Spec, bundle: &Path) -> Vec<PathBuf> {
    let mut paths = root::wanted(spec, bundle);
    paths.extend(mounts::wanted(spec, bundle));
    paths
}

/// Plans a container.
///
/// # Errors
/// The first refusal, in the order root, then mounts by index.
pub fn plan(request: PlanRequest<'_>, facts: &Facts) -> Result<Plan, PlanError> {
    let mut plan = Plan {
        spec: request.spec.document().clone(),
        container_root: request.container_root.to_owned(),
        needs: Needs::default(),
    };
    root::plan(request, facts, &mut plan)?;
    mounts::plan(request, facts, &mut plan)?;
    Ok(plan)
}

/// A path of the spec on the host.
pub(crate) fn resolved(bundle: &Path, path: impl AsRef<Path>) -> PathBuf {
    bundle.join(path)
}
