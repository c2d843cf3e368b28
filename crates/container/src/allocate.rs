//! Giving a container what its plan needs, and taking it back.
//!
//! Allocation is all or nothing: what was done is undone when a part fails, and the error is the first failure with
//! those of the undoing beside it. Release goes on past failures and can be called again until nothing is left.

use std::{fmt, path::PathBuf, sync::Arc};

use cofferdam_journal::ManagedFile;
use cofferdam_ledger::{Lease, StepFailure};
use cofferdam_plan::{DiskSource, Plan};
use cofferdam_reserve::{ReserveRefusal, Reserved, file_key, reserve};
use cofferdam_vm::Driver;
use futures_util::future::join_all;

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
}

impl Subject {
    /// The index of the mount it belongs to.
    #[must_use]
    pub fn mount_index(&self) -> Option<usize> {
        match self {
            Self::Disk { mount_index, .. } => Some(*mount_index),
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
        }
    }
}

/// Why a container got nothing.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// The VM has no room, or something is held in a way that excludes it. Nothing was touched.
    #[error(transparent)]
    Refused(#[from] ReserveRefusal),
    /// A step failed. What had been done was undone, but for what `clean_up` names.
    #[error("{subject}: {failure}{}", beside(clean_up))]
    Failed {
        /// What failed first.
        subject: Subject,
        /// Its failure.
        failure: StepFailure,
        /// What could not be undone.
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
    driver: Driver,
    overlay: Option<Lease>,
    /// Independent of each other, in allocation order.
    devices: Vec<(Lease, Subject)>,
    /// Files that are deleted on release.
    managed: Vec<ManagedFile>,
    /// Everything was given. Until then a release undoes, and keeps the files that are managed.
    complete: bool,
}

impl Allocation {
    /// Gives a container everything its plan needs, independent devices in parallel.
    ///
    /// # Errors
    /// [`AllocateError`]; the VM holds nothing for the container then, but for what the error names.
    pub async fn allocate(driver: &Driver, plan: &Plan) -> Result<Self, AllocateError> {
        let reserved = reserve(&mut driver.ledger(), plan)?;
        let mut allocation = Self::of(driver.clone(), plan, reserved);
        match allocation.acquire().await {
            Ok(()) => {
                allocation.complete = true;
                Ok(allocation)
            }
            Err((subject, failure)) => {
                let clean_up = allocation.release().await.err();
                Err(AllocateError::Failed {
                    subject,
                    failure,
                    clean_up,
                })
            }
        }
    }

    fn of(driver: Driver, plan: &Plan, reserved: Reserved) -> Self {
        let needs = &plan.needs;
        let mut devices = Vec::new();
        if let Some(layers) = &needs.layers {
            let subjects = layers
                .read_only
                .iter()
                .map(|layer| Subject::Layer(layer.host_path.clone()));
            devices.extend(reserved.layers.into_iter().zip(subjects));
            let scratch = Subject::Scratch(layers.scratch.host_path.clone());
            devices.extend(reserved.scratch.map(|lease| (lease, scratch)));
        }
        devices.extend(
            reserved
                .disks
                .into_iter()
                .zip(needs.disks.iter().map(|disk| Subject::Disk {
                    mount_index: disk.mount_index,
                    source: disk.source,
                    path: disk.host_path.clone(),
                })),
        );
        devices.extend(
            reserved
                .shares
                .into_iter()
                .zip(needs.shares.iter().map(|share| Subject::Share {
                    mount_index: share.mount_index,
                    path: share.host_path.clone(),
                })),
        );
        let managed = needs.disks.iter().filter(|disk| disk.auto_manage);
        let managed = managed.map(|disk| ManagedFile {
            path: disk.host_path.clone(),
            key: file_key(disk.identity),
        });
        Self {
            driver,
            overlay: reserved.overlay,
            devices,
            managed: managed.collect(),
            complete: false,
        }
    }

    async fn acquire(&self) -> Result<(), (Subject, StepFailure)> {
        for file in &self.managed {
            let noted = self.driver.note_managed(file.clone());
            noted.map_err(|cause| {
                (
                    Subject::Managed(file.path.clone()),
                    Arc::new(cause) as StepFailure,
                )
            })?;
        }
        let failures = each(&self.devices, |lease| self.driver.acquire(lease)).await;
        // The first in the order of the spec, whichever came first in time: the same error for the same spec.
        if let Some((_, subject, failure)) = failures.into_iter().next() {
            return Err((subject, failure));
        }
        match self.overlay {
            Some(lease) => self
                .driver
                .acquire(lease)
                .await
                .map_err(|failure| (Subject::CombinedLayers, failure)),
            None => Ok(()),
        }
    }

    /// Gives everything back: the overlay, then all devices, each unmounted, ejected and detached. Goes on past
    /// failures. Harmless when repeated; after an error it goes on with what is left.
    ///
    /// # Errors
    /// Everything that could not be given back.
    pub async fn release(&mut self) -> Result<(), ReleaseError> {
        if let Some(lease) = self.overlay {
            if let Err(failure) = self.let_go(lease).await {
                // Its layers and scratch are in use: taking them away would only fail, too.
                return Err(ReleaseError {
                    failures: vec![(Subject::CombinedLayers, failure)],
                });
            }
            self.overlay = None;
        }
        let failures = each(&self.devices, |lease| self.let_go(lease)).await;
        self.devices
            .retain(|(lease, _)| failures.iter().any(|(failed, _, _)| failed == lease));
        if failures.is_empty() {
            if !self.complete {
                self.managed
                    .drain(..)
                    .for_each(|file| self.driver.note_kept(file));
            }
            return Ok(());
        }
        let failures = failures
            .into_iter()
            .map(|(_, subject, failure)| (subject, failure))
            .collect();
        Err(ReleaseError { failures })
    }

    async fn let_go(&self, lease: Lease) -> Result<(), StepFailure> {
        if self.complete {
            self.driver.release(lease).await
        } else {
            self.driver.abandon(lease).await
        }
    }

    /// Whether nothing is held any more.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.overlay.is_none() && self.devices.is_empty()
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
        let (driver, overlay) = (self.driver.clone(), self.overlay.take());
        let devices = std::mem::take(&mut self.devices);
        let mut left = Self {
            driver,
            overlay,
            devices,
            managed: std::mem::take(&mut self.managed),
            complete: self.complete,
        };
        runtime.spawn(async move {
            if let Err(error) = left.release().await {
                tracing::error!(%error, "releasing a dropped allocation");
                // Reported; a further attempt by dropping it again would never end.
                left.overlay = None;
                left.devices.clear();
            }
        });
    }
}

/// Does the same for each lease at once, and returns the failures in the leases' order.
async fn each<F>(
    devices: &[(Lease, Subject)],
    action: impl Fn(Lease) -> F,
) -> Vec<(Lease, Subject, StepFailure)>
where
    F: Future<Output = Result<(), StepFailure>>,
{
    let outcomes = join_all(devices.iter().map(|(lease, _)| action(*lease))).await;
    devices
        .iter()
        .zip(outcomes)
        .filter_map(|((lease, subject), outcome)| Some((*lease, subject.clone(), outcome.err()?)))
        .collect()
}
