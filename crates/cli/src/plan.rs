//! `cofferdam plan`: what a bundle would take, through the code that takes it.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cofferdam_container::{facts, read_spec};
use cofferdam_explain::{Explanation, RefusalDocument, explain};
use cofferdam_ledger::address::Limits;
use cofferdam_plan::{Plan, PlanError, PlanRequest, Spec, plan, wanted};

use crate::{
    args::{PlanArgs, PlanFormat},
    exit::Exit,
};

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

/// What speaks against an image, told from its own bytes.
pub(crate) fn check_image(path: &Path) -> Result<(), String> {
    match cofferdam_image::probe(path) {
        Ok(facts) => facts.problem.map_or(Ok(()), Err),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs the command.
pub(crate) fn execute(args: &PlanArgs) -> Exit {
    match explained(args) {
        Ok(explanation) => print(match args.format {
            PlanFormat::Table => explanation.table(),
            PlanFormat::Json => explanation.json() + "\n",
            PlanFormat::Hcs => explanation.hcs_json() + "\n",
        }),
        Err(refusal) => {
            if args.format == PlanFormat::Json {
                println!("{}", refusal.json());
            }
            Exit::refused(refusal.message())
        }
    }
}

/// A reader that has seen enough is no failure.
fn print(text: String) -> Exit {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::refused(error.to_string()),
        _ => Exit::success(),
    }
}

fn explained(args: &PlanArgs) -> Result<Explanation, RefusalDocument> {
    let (file, dir) = located(args).map_err(told)?;
    let spec = spec_at(&file).map_err(told)?;
    let request = PlanRequest {
        spec: &spec,
        bundle: &dir,
        container_root: &args.container_root,
        process_isolation: args.no_vm,
    };
    let plan = planned(request, &check_image).map_err(|error| RefusalDocument::from(&error))?;
    let limits = Limits {
        scsi_controllers: args.scsi_controllers,
        vpmem_devices: args.vpmem_count,
        vpmem_max_bytes: args.vpmem_size,
    };
    explain(&plan, limits, args.no_vm).map_err(|error| RefusalDocument::from(&error))
}

fn told(error: anyhow::Error) -> RefusalDocument {
    let error: Box<dyn std::error::Error + Send + Sync> = error.into();
    RefusalDocument::new(error.as_ref(), None)
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
