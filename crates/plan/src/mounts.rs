//! Rules M1 to M10: the mounts.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    Facts, FileKind, Plan, PlanError, PlanRequest, Spec,
    error::{Refusal, SourceProblem},
    need::{DiskNeed, DiskSource, ShareNeed},
    resolved, root,
    spec::Mount,
};

/// A source below the sandbox: the guest resolves it.
const SANDBOX_PREFIX: &str = "sandbox://";

/// What a mount's type asks of cofferdam.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bind,
    Disk { source: DiskSource, auto_manage: bool },
}

/// The type of a mount that is not left as it is (rule M1).
fn kind(mount: &Mount) -> Option<Kind> {
    let disk = |source, auto_manage| Some(Kind::Disk { source, auto_manage });
    match mount.kind.as_deref()? {
        "bind" => Some(Kind::Bind),
        "physical-disk" => disk(DiskSource::Physical, false),
        "virtual-disk" => disk(DiskSource::Virtual, false),
        "automanage-virtual-disk" => disk(DiskSource::Virtual, true),
        _ => None,
    }
}

fn is_of_the_sandbox(kind: Kind, source: &str) -> bool {
    kind == Kind::Bind && source.starts_with(SANDBOX_PREFIX)
}

pub(crate) fn wanted(spec: &Spec, bundle: &Path) -> Vec<PathBuf> {
    let host_source = |mount: &Mount| {
        let source = mount.source.as_deref().filter(|source| !source.is_empty())?;
        let kind = kind(mount)?;
        (!is_of_the_sandbox(kind, source)).then(|| resolved(bundle, source))
    };
    spec.mounts().filter_map(host_source).collect()
}

pub(crate) fn plan(request: PlanRequest<'_>, facts: &Facts, plan: &mut Plan) -> Result<(), PlanError> {
    for (index, mount) in request.spec.mounts().enumerate() {
        one(request, facts, plan, index, mount).map_err(|refusal| PlanError {
            mount_index: Some(index),
            refusal,
        })?;
    }
    Ok(())
}

fn one(
    request: PlanRequest<'_>,
    facts: &Facts,
    plan: &mut Plan,
    index: usize,
    mount: &Mount,
) -> Result<(), Refusal> {
    let Some(kind) = kind(mount) else { return Ok(()) };
    let source = mount.source.as_deref().unwrap_or_default();
    if source.is_empty() || mount.destination.is_empty() {
        return Err(Refusal::IncompleteMount {
            source_path: source.to_owned(),
            destination: mount.destination.clone(),
        });
    }
    if request.process_isolation || is_of_the_sandbox(kind, source) {
        return Ok(());
    }
    let at = Place {
        index,
        host_path: resolved(request.bundle, source),
        guest_path: format!("{}/mounts/m{index}", request.container_root),
        read_only: mount.is_read_only(),
    };
    let entry = &mut plan.spec["mounts"][index];
    match kind {
        Kind::Disk { source, auto_manage } => {
            rewrite(entry, Some("none"), &at.guest_path);
            plan.needs.disks.push(disk(at, facts, source, auto_manage)?);
        }
        Kind::Bind => {
            let (share, source) = share(at, facts)?;
            rewrite(entry, None, &source);
            plan.needs.shares.push(share);
        }
    }
    Ok(())
}

/// Where one mount comes from and goes to.
struct Place {
    index: usize,
    host_path: PathBuf,
    guest_path: String,
    read_only: bool,
}

fn rewrite(entry: &mut Value, kind: Option<&str>, source: &str) {
    if let Some(kind) = kind {
        entry["type"] = json!(kind);
    }
    entry["source"] = json!(source);
}

fn disk(at: Place, facts: &Facts, source: DiskSource, auto_manage: bool) -> Result<DiskNeed, Refusal> {
    let path = at.host_path.clone();
    let identity = match source {
        DiskSource::Virtual => root::image(facts, &path)
            .map(|(identity, _)| identity)
            .map_err(|problem| Refusal::VirtualDisk { path, problem })?,
        DiskSource::Physical => facts
            .get(&path)
            .map_err(SourceProblem::from)
            .and_then(|facts| match facts.kind {
                FileKind::BlockDevice => Ok(facts.identity),
                other => Err(SourceProblem::WrongKind {
                    found: other.name(),
                    wanted: "a block device",
                }),
            })
            .map_err(|problem| Refusal::PhysicalDisk { path, problem })?,
    };
    Ok(DiskNeed {
        mount_index: at.index,
        host_path: at.host_path,
        identity,
        guest_path: at.guest_path,
        source,
        read_only: at.read_only,
        auto_manage,
    })
}

/// The share of a directory, or of the directory of a single file; with the source the entry gets.
fn share(at: Place, facts: &Facts) -> Result<(ShareNeed, String), Refusal> {
    let found = facts.get(&at.host_path).map_err(|source| Refusal::BindTarget {
        path: at.host_path.clone(),
        source,
    })?;
    let mut share = ShareNeed {
        mount_index: Some(at.index),
        host_path: at.host_path,
        guest_path: at.guest_path,
        read_only: at.read_only,
        allowed_names: None,
    };
    if found.kind == FileKind::Directory {
        let source = share.guest_path.clone();
        return Ok((share, source));
    }
    let path = share.host_path;
    let name = match path.file_name().map(|name| name.to_str()) {
        Some(Some(name)) => name.to_owned(),
        Some(None) | None => {
            return Err(Refusal::Share {
                path,
                problem: SourceProblem::Name,
            });
        }
    };
    share.host_path = path.parent().unwrap_or(Path::new("/")).to_owned();
    let source = format!("{}/{name}", share.guest_path);
    share.allowed_names = Some(vec![name]);
    Ok((share, source))
}
