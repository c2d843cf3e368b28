//! One mount more, for a container that runs: rules M1 to M9 again, and what its destination may be.
//!
//! The entry is not written into a spec; what it would have become there is what the guest is asked to mount.

use std::path::{Path, PathBuf};

use crate::{
    Facts, Mount, Needs, PlanError,
    error::Refusal,
    mounts::{self, Place},
    resolved,
};

/// Directories of the container that belong to its runtime and kernel. runc refuses a mount below /proc; below /dev
/// and /sys one would cover what the runtime has set up for the processes that run already.
const RESERVED: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Options that say what happens anyhow. Any other would not be applied, so it is refused rather than lost.
const OPTIONS: [&str; 6] = ["ro", "rw", "bind", "rbind", "private", "rprivate"];

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct MountRequest<'a> {
    /// The mount, as an entry of a spec's `mounts`.
    pub mount: &'a Mount,
    /// A relative source starts here.
    pub base: &'a Path,
    /// Where the container lives inside the VM, such as `/run/gcs/c/1`.
    pub container_root: &'a str,
    /// A number no other mount of the container has had, those of its spec included.
    pub index: usize,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// The mount's number.
    pub index: usize,
    /// What has to be there first: one disk, one share, or nothing for a `sandbox://` source.
    pub needs: Needs,
    /// What is brought into the container: a path of the VM, or the `sandbox://` source as it came.
    pub source: String,
    /// Where in the container; absolute and normalised.
    pub destination: String,
    /// Mounted read-only.
    pub read_only: bool,
}

/// The host path the plan of a mount has to know about, resolved.
#[must_use]
pub fn wanted_by_mount(mount: &Mount, base: &Path) -> Option<PathBuf> {
    mounts::host_source(mount, base)
}

/// Plans one further mount of a container that was planned before.
///
/// # Errors
/// The refusal, with the mount's index.
pub fn plan_mount(request: MountRequest<'_>, facts: &Facts) -> Result<MountPlan, PlanError> {
    planned(request, facts).map_err(|refusal| PlanError {
        mount_index: Some(request.index),
        refusal,
    })
}

fn planned(request: MountRequest<'_>, facts: &Facts) -> Result<MountPlan, Refusal> {
    let mount = request.mount;
    let kind = mounts::kind(mount).ok_or_else(|| Refusal::TypeOfRuntime {
        kind: mount.kind.clone().unwrap_or_default(),
    })?;
    let source = mounts::complete_source(mount)?;
    let destination = destination(&mount.destination)?;
    let known = |option: &str| OPTIONS.iter().any(|known| known.eq_ignore_ascii_case(option));
    if let Some(option) = mount.options.iter().flatten().find(|option| !known(option)) {
        return Err(Refusal::Option {
            option: option.clone(),
        });
    }
    let read_only = mount.is_read_only();
    let mut needs = Needs::default();
    let source = if mounts::is_of_the_sandbox(kind, source) {
        source.to_owned()
    } else {
        let at = Place {
            index: request.index,
            host_path: resolved(request.base, source),
            guest_path: mounts::guest_path(request.container_root, request.index),
            read_only,
        };
        mounts::need(kind, at, facts, &mut needs)?
    };
    Ok(MountPlan {
        index: request.index,
        needs,
        source,
        destination,
        read_only,
    })
}

/// The one form a destination is known by ([`MountPlan::destination`]), to find a mount again.
///
/// # Errors
/// The refusal of a destination that no such mount can have.
pub fn container_destination(text: &str) -> Result<String, PlanError> {
    destination(text).map_err(|refusal| PlanError {
        mount_index: None,
        refusal,
    })
}

/// A destination in the one form it is known by: two spellings of a path must not be two mounts.
fn destination(text: &str) -> Result<String, Refusal> {
    let refused = |problem| {
        Err(Refusal::Destination {
            destination: text.to_owned(),
            problem,
        })
    };
    if !text.starts_with('/') {
        return refused("is not absolute");
    }
    if text.contains('\0') {
        return refused("holds a NUL");
    }
    let parts: Vec<_> = text
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if parts.contains(&"..") {
        return refused("climbs");
    }
    if parts.is_empty() {
        return refused("is the container's root");
    }
    let path = format!("/{}", parts.join("/"));
    if RESERVED
        .iter()
        .any(|reserved| Path::new(&path).starts_with(reserved))
    {
        return refused(
            "belongs to the container's runtime: nothing is mounted on or below /dev, /proc and /sys later",
        );
    }
    Ok(path)
}
