//! Mounts of running containers: brought in while they run, and taken out again.
//!
//! A container has a mount namespace of its own, and nothing that is mounted in the VM later shows there. So the
//! agent copies the mount into a tree that hangs nowhere ([`tree`]), enters the container's namespace with a thread
//! ([`namespace`]), finds the destination there without ever leaving the container's root ([`point`]) and hangs the
//! tree on it. [`holders`] says who keeps a mount from going.
//!
//! What was brought in is remembered here by the kernel's own numbers, so that a removal takes out this and nothing
//! else, wherever the container has moved its links meanwhile.

mod holders;
mod namespace;
mod point;
mod tree;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cofferdam_mounting::mountinfo::Mount;
use cofferdam_protocol::settings::ContainerMount;
use namespace::Namespace;
use point::Made;
use tree::Tree;

use super::{Container, Containers, Phase, sandbox, state_error};
use crate::{
    error::{AgentError, Result},
    process::Process,
    storage::path::{container_path, guest_path},
};

/// The mounts a container got while it runs, by the destination that was asked for.
#[derive(Debug, Default)]
pub(super) struct HotMounts(Mutex<Table>);

type Table = BTreeMap<PathBuf, Injected>;

/// One of them.
#[derive(Debug)]
struct Injected {
    /// Where it really is, links resolved.
    place: PathBuf,
    /// Its mounts as the kernel lists them, the topmost directory's first.
    mounts: Vec<Mount>,
    /// What was made for it to be mounted on.
    made: Vec<Made>,
}

impl Containers {
    /// Brings a mount of the VM into a running container.
    pub(crate) fn add_mount(&self, id: &str, request: &ContainerMount) -> Result<()> {
        let destination = container_path(&request.destination)?;
        let container = self.get(id)?;
        let init = container.running()?;
        let source = container.source(&request.source)?;
        let tree = Tree::of(&source, &request.source, request.read_only)?;
        drop(source);
        let namespace = Namespace::of(&self.reaper, init.pid())?
            .ok_or_else(|| AgentError::AlreadyStopped(id.to_owned()))?;
        let mut table = container.hot.lock();
        add(&mut table, &namespace, &destination, tree)
    }

    /// Takes it out again. What is absent counts as done, and so does a container that has ended: its mounts went
    /// with its namespace.
    pub(crate) fn remove_mount(&self, id: &str, request: &ContainerMount) -> Result<()> {
        let destination = container_path(&request.destination)?;
        let Ok(container) = self.get(id) else {
            return Ok(());
        };
        let mut table = container.hot.lock();
        let init = container.lock().init.clone();
        let namespace = match init.filter(|init| !init.has_exited()) {
            Some(init) => Namespace::of(&self.reaper, init.pid())?,
            None => None,
        };
        match namespace {
            Some(namespace) => remove(&mut table, &namespace, &destination, &container.cgroup()),
            None => {
                table.remove(&destination);
                Ok(())
            }
        }
    }
}

impl Container {
    /// Its first process, if it runs.
    pub(super) fn running(&self) -> Result<Arc<Process>> {
        let state = self.lock();
        match (&state.init, state.phase) {
            (Some(init), Phase::Started) if init.has_exited() => {
                Err(AgentError::AlreadyStopped(self.id.clone()))
            }
            (Some(init), Phase::Started) => Ok(Arc::clone(init)),
            _ => Err(state_error(&self.id, "is not running")),
        }
    }

    /// What is to be mounted: a path of the VM, or one below the container's sandbox.
    fn source(&self, source: &str) -> Result<std::os::fd::OwnedFd> {
        match source.strip_prefix(sandbox::PREFIX) {
            Some(path) => {
                let root = self.sandbox_root.get().unwrap_or(&self.bundle);
                sandbox::resolve(root, path)
            }
            None => tree::open_source(&guest_path(source)?),
        }
    }
}

impl HotMounts {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hangs a tree on a destination, whole or not at all.
fn add(table: &mut Table, namespace: &Namespace, destination: &Path, tree: Tree) -> Result<()> {
    let refuse = |holder: String| {
        Err(AgentError::Busy {
            what: format!("destination {}", destination.display()),
            holder,
        })
    };
    if table.contains_key(destination) {
        return refuse("something was mounted there while the container runs".into());
    }
    let (place, made) = namespace.enter(|root| {
        let point = point::find_or_make(root, destination, tree.is_directory())?;
        // The second would hide the first from its own removal.
        let taken = table.values().any(|other| other.place == point.place);
        let hung = if taken {
            refuse(format!(
                "it is {}, where something was mounted already",
                point.place.display()
            ))
        } else {
            tree.hang(&point)
        };
        match hung {
            Ok(()) => Ok((point.place, point.made)),
            Err(error) => {
                point::remove(root, &point.made);
                Err(error)
            }
        }
    })?;
    let mounts = namespace.mounts().map(|all| below(all, tree.id()));
    // Without its list it is still known by its own number: nothing that is mounted is forgotten.
    let mounts = mounts.unwrap_or_else(|error| {
        tracing::warn!(%error, place = %place.display(), "reading what was mounted");
        vec![tree.as_mount(&place)]
    });
    let injected = Injected { place, mounts, made };
    table.insert(destination.to_owned(), injected);
    Ok(())
}

/// Takes out what [`add`] brought in. After an error it can be called again, and goes on with what is left.
fn remove(table: &mut Table, namespace: &Namespace, destination: &Path, cgroup: &Path) -> Result<()> {
    let Some(injected) = table.get(destination) else {
        return Ok(());
    };
    let all = namespace.mounts()?;
    let left: Vec<&Mount> = all.iter().filter(|mount| injected.has(mount)).collect();
    let outcome = namespace.enter(|root| {
        left.iter()
            .rev()
            .try_for_each(|mount| point::unmount(root, mount.id, &mount.path))
    });
    if let Err(point::Unmounting::Busy(place)) = outcome {
        return Err(AgentError::Busy {
            what: format!("mount {} of the container", place.display()),
            holder: holders::of(&injected.mounts, &all, &place, cgroup),
        });
    }
    outcome?;
    // A process that has copied the namespace since keeps its copy, and with it the disk.
    if let Some(holder) = holders::with_a_copy(&injected.mounts, namespace, cgroup) {
        return Err(AgentError::Busy {
            what: format!("mount {} of the container", injected.place.display()),
            holder,
        });
    }
    namespace.enter(|root| {
        point::remove(root, &injected.made);
        Ok::<(), AgentError>(())
    })?;
    table.remove(destination);
    Ok(())
}

impl Injected {
    /// Whether a mount of the namespace is one of these. Numbers are used again, so the rest must fit too.
    fn has(&self, mount: &Mount) -> bool {
        self.mounts
            .iter()
            .any(|own| own.id == mount.id && own.is_of_same_source(mount))
    }
}

/// The mount with this number and every mount on it, in the order they lie on each other.
fn below(all: Vec<Mount>, top: u64) -> Vec<Mount> {
    let mut own: Vec<Mount> = Vec::new();
    for mount in all {
        if mount.id == top || own.iter().any(|lower| lower.id == mount.parent) {
            own.push(mount);
        }
    }
    own
}
