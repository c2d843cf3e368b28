//! Rules M1 to M10: the mounts.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    Facts, FileKind, Plan, PlanError, PlanRequest, Spec,
    error::{Refusal, SourceProblem},
    need::{DiskNeed, DiskSource, Needs, ShareNeed},
    resolved, root,
    spec::Mount,
};

/// A source below the sandbox: the guest resolves it.
pub const SANDBOX_PREFIX: &str = "sandbox://";

/// What a mount's type asks of cofferdam.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bind,
    Disk { source: DiskSource, auto_manage: bool },
}

/// The type of a mount that is not left as it is (rule M1).
pub(crate) fn kind(mount: &Mount) -> Option<Kind> {
    let disk = |source, auto_manage| Some(Kind::Disk { source, auto_manage });
    match mount.kind.as_deref()? {
        "bind" => Some(Kind::Bind),
        "physical-disk" => disk(DiskSource::Physical, false),
        "virtual-disk" => disk(DiskSource::Virtual, false),
        "automanage-virtual-disk" => disk(DiskSource::Virtual, true),
        _ => None,
    }
}

pub(crate) fn is_of_the_sandbox(kind: Kind, source: &str) -> bool {
    kind == Kind::Bind && source.starts_with(SANDBOX_PREFIX)
}

pub(crate) fn wanted(spec: &Spec, bundle: &Path) -> Vec<PathBuf> {
    spec.mounts()
        .filter_map(|mount| host_source(mount, bundle))
        .collect()
}

/// The host path a mount's source leads to, where it is one.
pub(crate) fn host_source(mount: &Mount, base: &Path) -> Option<PathBuf> {
    let source = mount.source.as_deref().filter(|source| !source.is_empty())?;
    let kind = kind(mount)?;
    (!is_of_the_sandbox(kind, source)).then(|| resolved(base, source))
}

/// Rule M2: the source, where neither it nor the destination is missing.
pub(crate) fn complete_source(mount: &Mount) -> Result<&str, Refusal> {
    let source = mount.source.as_deref().unwrap_or_default();
    if source.is_empty() || mount.destination.is_empty() {
        return Err(Refusal::IncompleteMount {
            source_path: source.to_owned(),
            destination: mount.destination.clone(),
        });
    }
    Ok(source)
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
    let source = complete_source(mount)?;
    if request.process_isolation || is_of_the_sandbox(kind, source) {
        return Ok(());
    }
    let at = Place {
        index,
        host_path: resolved(request.bundle, source),
        guest_path: guest_path(request.container_root, index),
        read_only: mount.is_read_only(),
    };
    let source = need(kind, at, facts, &mut plan.needs)?;
    let kind = (kind != Kind::Bind).then_some("none");
    rewrite(&mut plan.spec["mounts"][index], kind, &source);
    Ok(())
}

/// Where mount `index` of a container is in the VM.
pub(crate) fn guest_path(container_root: &str, index: usize) -> String {
    format!("{container_root}/mounts/m{index}")
}

/// Notes what a mount needs, and returns its source inside the VM.
pub(crate) fn need(kind: Kind, at: Place, facts: &Facts, needs: &mut Needs) -> Result<String, Refusal> {
    match kind {
        Kind::Disk { source, auto_manage } => {
            let guest_path = at.guest_path.clone();
            needs.disks.push(disk(at, facts, source, auto_manage)?);
            Ok(guest_path)
        }
        Kind::Bind => {
            let (share, source) = share(at, facts)?;
            needs.shares.push(share);
            Ok(source)
        }
    }
}

/// Where one mount comes from and goes to.
pub(crate) struct Place {
    pub(crate) index: usize,
    pub(crate) host_path: PathBuf,
    pub(crate) guest_path: String,
    pub(crate) read_only: bool,
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
