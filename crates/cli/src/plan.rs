//! `cofferdam plan`: what a bundle, or all bundles of a pod, would take, through the code that takes it.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cofferdam_container::{facts::planned, read_spec};
use cofferdam_explain::{RefusalDocument, explain, explain_pod};
use cofferdam_ledger::address::Limits;
use cofferdam_plan::{Plan, PlanRequest, Spec};

use crate::{
    args::{PlanArgs, PlanFormat},
    exit::Exit,
    run_image::plan_of_image,
};

/// Reads and parses a spec.
pub(crate) fn spec_at(file: &Path) -> Result<Spec> {
    let text = read_spec(file).with_context(|| format!("reading {}", file.display()))?;
    Spec::parse(&text).with_context(|| format!("in {}", file.display()))
}

/// Runs the command.
pub(crate) fn execute(args: &PlanArgs) -> Exit {
    if args.image.is_none() && args.run.says_something() {
        return Exit::usage("options of a container are for --image; a bundle says them itself");
    }
    let files = located(args);
    if let Some(reason) = for_one_only(args, files.len()) {
        return Exit::usage(reason);
    }
    let shown = match files.as_slice() {
        [file] => of_one(args, file),
        files => of_pod(args, files),
    };
    match shown {
        Ok(text) => print(text),
        Err(refusal) => {
            if args.format == PlanFormat::Json {
                // Whoever reads no further has seen enough; the status says the rest.
                drop(print(refusal.json() + "\n"));
            }
            Exit::refused(refusal.message())
        }
    }
}

/// What speaks against an option for several containers.
fn for_one_only(args: &PlanArgs, containers: usize) -> Option<&'static str> {
    if containers == 1 {
        None
    } else if args.container_root.is_some() {
        Some("--container-root is for one container; those of a pod have a root of their own each")
    } else if args.no_vm {
        Some("--no-vm is for one container; without a VM there is none that several could share")
    } else {
        None
    }
}

/// A reader that has seen enough is no failure.
fn print(text: String) -> Exit {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::refused(error.to_string()),
        _ => Exit::success(),
    }
}

fn of_one(args: &PlanArgs, file: &Path) -> Result<String, RefusalDocument> {
    let root = args.container_root.as_deref().unwrap_or("/run/gcs/c/1");
    let plan = match &args.image {
        None => plan_at(file, root, args.no_vm)?,
        Some(image) => plan_of_image(&args.run, image, root, args.no_vm)
            .map_err(told)?
            .map_err(|error| RefusalDocument::from(&error))?,
    };
    let explanation =
        explain(&plan, limits(args), args.no_vm).map_err(|error| RefusalDocument::from(&error))?;
    Ok(match args.format {
        PlanFormat::Table => explanation.table(),
        PlanFormat::Json => explanation.json() + "\n",
        PlanFormat::Hcs => explanation.hcs_json() + "\n",
    })
}

fn of_pod(args: &PlanArgs, files: &[PathBuf]) -> Result<String, RefusalDocument> {
    let one = |(n, file): (usize, &PathBuf)| {
        let root = format!("/run/gcs/c/{:x}", n + 1);
        plan_at(file, &root, false).map_err(|refusal| refusal.of_container(n))
    };
    let plans = files.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
    let pod = explain_pod(&plans, limits(args)).map_err(|error| RefusalDocument::from(&error))?;
    Ok(match args.format {
        PlanFormat::Table => {
            let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
            pod.table(&names)
        }
        PlanFormat::Json => pod.json() + "\n",
        PlanFormat::Hcs => pod.hcs_json() + "\n",
    })
}

/// The plan of one spec's file. Relative paths in it start in its directory.
fn plan_at(file: &Path, container_root: &str, process_isolation: bool) -> Result<Plan, RefusalDocument> {
    let file = std::path::absolute(file)
        .with_context(|| format!("resolving {}", file.display()))
        .map_err(told)?;
    let spec = spec_at(&file).map_err(told)?;
    let request = PlanRequest {
        spec: &spec,
        bundle: file.parent().unwrap_or(Path::new("/")),
        container_root,
        process_isolation,
    };
    planned(request, &cofferdam_image::check).map_err(|error| RefusalDocument::from(&error))
}

fn limits(args: &PlanArgs) -> Limits {
    Limits {
        scsi_controllers: args.scsi_controllers,
        vpmem_devices: args.vpmem_count,
        vpmem_max_bytes: args.vpmem_size,
    }
}

fn told(error: anyhow::Error) -> RefusalDocument {
    let error: Box<dyn std::error::Error + Send + Sync> = error.into();
    RefusalDocument::new(error.as_ref(), None)
}

/// The specs' files: those of the bundles first, then those that were named themselves.
fn located(args: &PlanArgs) -> Vec<PathBuf> {
    let config = |bundle: &PathBuf| bundle.join("config.json");
    if args.bundle.is_empty() && args.spec.is_empty() {
        return vec![config(&PathBuf::from("."))];
    }
    args.bundle
        .iter()
        .map(config)
        .chain(args.spec.iter().cloned())
        .collect()
}
