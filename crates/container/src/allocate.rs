//! Giving a container what its plan needs, and taking it back.
//!
//! Allocation is all or nothing: what was done is undone when a part fails, and the error is the first failure with
//! those of the undoing beside it. Release goes on past failures and can be called again until nothing is left.

use std::{fmt, path::PathBuf, sync::Arc};

use cofferdam_ledger::{Lease, StepFailure};
use cofferdam_plan::{DiskSource, Plan};
use cofferdam_reserve::{ReserveRefusal, Reserved, reserve};
use cofferdam_vm::{Driver, GuestError};

use crate::{
    held::{self, Held},
    holding::Holding,
    hot_mount::Mounts,
};

/// What a lease stands for, in the user's terms. It begins every error about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A read-only layer.
    Layer(PathBuf),
    /// The scratch disk.
    Scratch(PathBuf),
    /// The overlay of the layers.
    CombinedLayers,
    /// A disk of a mount.
    Disk {
        /// The mount's index in the spec.
        mount_index: usize,
        /// Image or block device.
        source: DiskSource,
        /// The image or device.
        path: PathBuf,
    },
    /// A file that is deleted on release.
    Managed(PathBuf),
    /// A share of a mount, or of the root.
    Share {
        /// The mount's index in the spec; `None` for the root.
        mount_index: Option<usize>,
        /// The directory.
        path: PathBuf,
    },
    /// A mount of a running container.
    InContainer {
        /// The mount's number.
        mount_index: usize,
        /// Where in the container.
        destination: String,
    },
}

impl Subject {
    /// The index of the mount it belongs to.
    #[must_use]
    pub fn mount_index(&self) -> Option<usize> {
        match self {
            Self::Disk { mount_index, .. } | Self::InContainer { mount_index, .. } => Some(*mount_index),
            Self::Share { mount_index, .. } => *mount_index,
            _ => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.mount_index() {
            write!(f, "mount {index}: ")?;
        }
        match self {
            Self::Layer(path) => write!(f, "failed to mount container storage: layer {}", path.display()),
            Self::Scratch(path) => write!(f, "failed to mount container storage: scratch {}", path.display()),
            Self::CombinedLayers => write!(f, "failed to mount container storage: combined layers"),
            Self::Disk {
                source: DiskSource::Virtual,
                path,
                ..
            } => {
                write!(f, "adding SCSI virtual disk mount {}", path.display())
            }
            Self::Disk {
                source: DiskSource::Physical,
                path,
                ..
            } => {
                write!(f, "adding SCSI physical disk mount {}", path.display())
            }
            Self::Managed(path) => write!(f, "adding auto-managed disk {}", path.display()),
            Self::Share {
                mount_index: None,
                path,
            } => write!(f, "adding plan9 root {}", path.display()),
            Self::Share { path, .. } => write!(f, "adding plan9 mount {}", path.display()),
            Self::InContainer { destination, .. } => write!(f, "on {destination} of the running container"),
        }
    }
}

/// Why a container got nothing.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// The VM has no room, or something is held in a way that excludes it. Nothing was touched.
    #[error(transparent)]
    Refused(#[from] ReserveRefusal),
    /// The guest cannot do it. Nothing was touched.
    #[error(transparent)]
    Unsupported(#[from] GuestError),
    /// A step failed. What had been done was undone, but for what `clean_up` names.
    #[error("{subject}: {failure}{}", beside(clean_up))]
    Failed {
        /// What failed first.
        subject: Subject,
        /// Its failure.
        failure: StepFailure,
        /// What could not be undone yet. It is tried again in the background.
        clean_up: Option<ReleaseError>,
    },
}

fn beside(clean_up: &Option<ReleaseError>) -> String {
    clean_up
        .as_ref()
        .map(|error| format!("\nwhile undoing it: {error}"))
        .unwrap_or_default()
}

/// Everything that could not be given back. It is held still, and can be released again.
#[derive(Debug)]
pub struct ReleaseError {
    /// Each thing with the failure of its step.
    pub failures: Vec<(Subject, StepFailure)>,
}

impl std::error::Error for ReleaseError {}

impl ReleaseError {
    /// One error of several releases, if any of them failed.
    pub(crate) fn of_all(outcomes: impl IntoIterator<Item = Result<(), Self>>) -> Result<(), Self> {
        let failed = outcomes.into_iter().filter_map(Result::err);
        let failures: Vec<_> = failed.flat_map(|error| error.failures).collect();
        if failures.is_empty() {
            Ok(())
        } else {
            Err(Self { failures })
        }
    }
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} not released", self.failures.len())?;
        for (subject, failure) in &self.failures {
            write!(f, "\n  {subject}: {failure}")?;
        }
        Ok(())
    }
}

/// What a container holds of its VM. Dropped without a release, it is released in the background.
#[must_use = "an allocation is released, or the VM holds it"]
pub struct Allocation {
    holding: Holding,
    /// What it got, in the order of allocation.
    held: Arc<[Held]>,
    mounts: Arc<Mounts>,
}

impl Allocation {
    /// Gives a container everything its plan needs, independent devices in parallel.
    ///
    /// # Errors
    /// [`AllocateError`]; the VM holds nothing for the container then, but for what the error names.
    pub async fn allocate(driver: &Driver, plan: &Plan) -> Result<Self, AllocateError> {
        let reserved = reserve(&mut driver.ledger(), plan)?;
        let holding = holding(driver.clone(), plan, reserved).acquired().await?;
        Ok(Self {
            held: held::of_plan(holding.leases(), plan).into(),
            holding,
            mounts: Arc::new(Mounts::of(driver.clone(), plan)),
        })
    }

    /// What it was given for its spec: layers, topmost first, scratch, disks, shares, the overlay. Mounts that came later are
    /// those of [`Mounts::held`].
    #[must_use]
    pub fn held(&self) -> &Arc<[Held]> {
        &self.held
    }

    /// The mounts the container gets while it runs. They are released with everything else.
    #[must_use]
    pub fn mounts(&self) -> &Arc<Mounts> {
        &self.mounts
    }

    /// Gives everything back: what was mounted while the container ran, the overlay, then all devices, each unmounted,
    /// ejected and detached. Goes on past failures. Harmless when repeated; after an error it goes on with what is
    /// left.
    ///
    /// # Errors
    /// Everything that could not be given back.
    pub async fn release(&mut self) -> Result<(), ReleaseError> {
        let mounts = self.mounts.release().await;
        let own = self.holding.release().await;
        ReleaseError::of_all([mounts, own])
    }

    /// Whether nothing is held any more.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.holding.is_released() && self.mounts.is_empty()
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.is_released() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (mounts, mut holding) = (self.mounts.clone(), self.holding.take());
        runtime.spawn(async move {
            if let Err(error) = mounts.release().await {
                tracing::error!(%error, "releasing the mounts of a dropped allocation");
            }
            holding.release_in_the_end().await;
        });
    }
}

/// Which lease is of which need.
fn holding(driver: Driver, plan: &Plan, reserved: Reserved) -> Holding {
    let needs = &plan.needs;
    let mut devices: Vec<(Lease, Subject)> = Vec::new();
    if let Some(layers) = &needs.layers {
        let subjects = layers
            .read_only
            .iter()
            .map(|layer| Subject::Layer(layer.host_path.clone()));
        devices.extend(reserved.layers.into_iter().zip(subjects));
        let scratch = Subject::Scratch(layers.scratch.host_path.clone());
        devices.extend(reserved.scratch.map(|lease| (lease, scratch)));
    }
    let overlay = reserved.overlay.map(|lease| (lease, Subject::CombinedLayers));
    Holding::new(driver, overlay, devices).with_mounts(needs, reserved.disks, reserved.shares)
}
