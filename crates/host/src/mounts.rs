//! Mounts of one owner on this host: what the agent does inside a VM.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use cofferdam_mounting::{
    MountError, layer, mount_point,
    overlay::{self, Overlay},
};
use rustix::mount::MountFlags;

use crate::{
    Owner,
    disks::Node,
    error::{During, HostError, Result},
    files::remove_mount_point,
};

/// How long a mount in use is given.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// Mount points. A directory that was there before stays there: only one that was made is removed.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    made: Mutex<BTreeSet<PathBuf>>,
}

impl Mounts {
    /// Mounts a disk.
    pub(crate) fn disk(&self, node: &Node, path: &str, read_only: bool) -> Result<()> {
        let point = self.make(Path::new(path))?;
        let mounted = mount_disk(node, &point, read_only);
        self.unless_failed(&point, mounted)
    }

    /// Stacks layers.
    pub(crate) fn overlay(&self, owner: &Owner, root: &str, layers: &[String], scratch: &str) -> Result<()> {
        let point = self.make(Path::new(root))?;
        let stacked = overlay::add(&Overlay {
            root: point.clone(),
            lower: layers.iter().map(PathBuf::from).collect(),
            scratch: (!scratch.is_empty()).then(|| scratch.into()),
            links: owner.links(),
        });
        self.unless_failed(&point, stacked.map_err(HostError::Mount))
    }

    /// Unmounts whatever is on a path, and removes the directory if it was made for that. What is absent counts as
    /// done.
    pub(crate) fn clear(&self, path: &str) -> Result<()> {
        let Some(point) = existing(Path::new(path))? else {
            return Ok(());
        };
        unmount(&point)?;
        self.remove(&point)
    }

    fn make(&self, path: &Path) -> Result<PathBuf> {
        if let Some(parent) = path.parent() {
            mount_point::make(parent)?;
        }
        let point = place(path)?;
        let is_new = match fs::symlink_metadata(&point) {
            Ok(found) if found.is_dir() => false,
            Ok(_) => {
                return Err(HostError::Busy {
                    what: format!("mount point {}", point.display()),
                    holder: "it is no directory".to_owned(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error).during(|| format!("looking at {}", point.display())),
        };
        mount_point::make_free(&point)?;
        if is_new {
            self.made().insert(point.clone());
        }
        Ok(point)
    }

    fn unless_failed(&self, point: &Path, outcome: Result<()>) -> Result<()> {
        if outcome.is_err()
            && let Err(error) = self.remove(point)
        {
            tracing::warn!(%error, "removing a mount point after a failed step");
        }
        outcome
    }

    fn remove(&self, point: &Path) -> Result<()> {
        if !self.made().contains(point) {
            return Ok(());
        }
        remove_mount_point(point)?;
        self.made().remove(point);
        Ok(())
    }

    fn made(&self) -> std::sync::MutexGuard<'_, BTreeSet<PathBuf>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unmounts whatever is on a mount point. Processes of a container that was killed take a moment to let go.
pub(crate) fn unmount(point: &Path) -> Result<()> {
    let start = Instant::now();
    loop {
        match mount_point::unmount_all(point) {
            Err(MountError::Busy { .. }) if start.elapsed() < BUSY_LIMIT => thread::sleep(POLL),
            outcome => return Ok(outcome?),
        }
    }
}

fn mount_disk(node: &Node, point: &Path, read_only: bool) -> Result<()> {
    let source = layer::Source::open(layer::Found::look(&node.path)?, &node.checked, read_only, None)?;
    let found = source.filesystem();
    let mut options = Vec::new();
    // A read-only mount of a device that refuses writes must leave the journal alone.
    if read_only && (node.read_only || source.is_checked()) {
        options.push(found.no_recovery_option());
    }
    // A layer is mounted once for each container, each time from a device of its own.
    if found.name == "xfs" {
        options.push("nouuid");
    }
    options.retain(|option| !option.is_empty());
    let flags = if read_only {
        MountFlags::RDONLY
    } else {
        MountFlags::empty()
    };
    // The device that checks its blocks goes with the disk: the disk may be mounted elsewhere too.
    Ok(source.mount(point, flags, &options.join(","))?)
}

/// The path as the mount table has it: no symbolic link leads to it. The directory itself may be absent, the one it is
/// in may not.
fn place(path: &Path) -> Result<PathBuf> {
    let action = || format!("looking for mount point {}", path.display());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).during(action);
    };
    Ok(parent.canonicalize().during(action)?.join(name))
}

/// The same for a path that may be gone altogether.
pub(crate) fn existing(path: &Path) -> Result<Option<PathBuf>> {
    match place(path) {
        Err(HostError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        place => place.map(Some),
    }
}
