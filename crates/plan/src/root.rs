//! Rules R1 to R5: the root filesystem.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    Facts, FileKind, LAYER_FILE, Plan, PlanError, PlanRequest, SCRATCH_FILE, Spec,
    error::{Refusal, SourceProblem, StorageProblem},
    facts::FileFacts,
    need::{LayerNeed, Layers, ShareNeed},
    resolved,
};

pub(crate) fn wanted(spec: &Spec, bundle: &Path) -> Vec<PathBuf> {
    let folders = spec.layer_folders();
    if !folders.is_empty() {
        return images(folders, bundle).collect();
    }
    let root = spec.root().path;
    if root.as_os_str().is_empty() {
        Vec::new()
    } else {
        vec![resolved(bundle, root)]
    }
}

/// The images of the layer folders, the scratch last.
fn images(folders: &[PathBuf], bundle: &Path) -> impl Iterator<Item = PathBuf> {
    folders.iter().enumerate().map(move |(n, folder)| {
        let file = if n + 1 == folders.len() {
            SCRATCH_FILE
        } else {
            LAYER_FILE
        };
        resolved(bundle, folder).join(file)
    })
}

pub(crate) fn plan(request: PlanRequest<'_>, facts: &Facts, plan: &mut Plan) -> Result<(), PlanError> {
    let refused = |refusal| PlanError {
        mount_index: None,
        refusal,
    };
    let folders = request.spec.layer_folders();
    let root = request.spec.root();
    let mut root_path = format!("{}/rootfs", request.container_root);
    if !folders.is_empty() {
        let layers = layers(request, folders, facts).map_err(|problem| refused(Refusal::Storage(problem)))?;
        root_path = layers.root_path.clone();
        plan.needs.layers = Some(layers);
    } else if root.path.as_os_str().is_empty() {
        return Err(refused(Refusal::NoRoot));
    } else if request.process_isolation {
        return Err(refused(Refusal::RootWithoutVm));
    } else {
        let host_path = resolved(request.bundle, &root.path);
        let directory = facts
            .get(&host_path)
            .map_err(SourceProblem::from)
            .and_then(directory);
        directory.map_err(|problem| refused(Refusal::Root(problem)))?;
        plan.needs.shares.push(ShareNeed {
            mount_index: None,
            host_path,
            guest_path: root_path.clone(),
            read_only: root.readonly,
            allowed_names: None,
        });
    }
    set_root_path(&mut plan.spec, root_path);
    Ok(())
}

fn directory(facts: &FileFacts) -> Result<(), SourceProblem> {
    match facts.kind {
        FileKind::Directory => Ok(()),
        other => Err(SourceProblem::WrongKind {
            found: other.name(),
            wanted: "a directory",
        }),
    }
}

fn layers(request: PlanRequest<'_>, folders: &[PathBuf], facts: &Facts) -> Result<Layers, StorageProblem> {
    if folders.len() < 2 {
        return Err(StorageProblem::TooFew);
    }
    let mut read_only = images(folders, request.bundle)
        .map(|path| {
            image(facts, &path)
                .map(|(identity, bytes)| LayerNeed {
                    host_path: path.clone(),
                    identity,
                    bytes,
                })
                .map_err(|problem| StorageProblem::Image { path, problem })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let scratch = read_only.pop().ok_or(StorageProblem::TooFew)?;
    let place = place(request)?;
    Ok(Layers {
        read_only,
        scratch,
        scratch_path: format!("{place}/scratch"),
        root_path: format!("{place}/rootfs"),
    })
}

/// Where scratch and root filesystem are mounted: under the container root in the VM, or under the bundle on the host
/// itself (rule R3), which belongs to this container alone.
fn place(request: PlanRequest<'_>) -> Result<&str, StorageProblem> {
    if !request.process_isolation {
        return Ok(request.container_root);
    }
    request.bundle.to_str().ok_or_else(|| StorageProblem::Image {
        path: request.bundle.to_owned(),
        problem: SourceProblem::Name,
    })
}

/// A regular file that holds a disk.
pub(crate) fn image(facts: &Facts, path: &Path) -> Result<(crate::FileId, u64), SourceProblem> {
    let facts = facts.get(path)?;
    match (facts.kind, &facts.image_problem) {
        (FileKind::File { bytes }, None) => Ok((facts.identity, bytes)),
        (FileKind::File { .. }, Some(problem)) => Err(SourceProblem::Image(problem.clone())),
        (other, _) => Err(SourceProblem::WrongKind {
            found: other.name(),
            wanted: "a disk image",
        }),
    }
}

fn set_root_path(spec: &mut Value, path: String) {
    match spec.get_mut("root").and_then(Value::as_object_mut) {
        Some(root) => {
            root.insert("path".to_owned(), Value::String(path));
        }
        None => spec["root"] = json!({ "path": path }),
    }
}
