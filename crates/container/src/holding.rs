//! Leases that belong together: all acquired, or none; and released as far as that goes.

use std::{sync::Arc, time::Duration};

use cofferdam_journal::ManagedFile;
use cofferdam_ledger::{Lease, StepFailure};
use cofferdam_plan::Needs;
use cofferdam_reserve::file_key;
use cofferdam_vm::Driver;
use futures_util::future::join_all;

use crate::allocate::{AllocateError, ReleaseError, Subject};

/// How often a release that nobody waits for is tried: for seven minutes. After that the cause is none that passes, and
/// going on would only fill the log.
const TRIES: u32 = 12;
/// The pause after its first failure. Each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(64);

/// What one container, or one mount of it, holds of its VM. Dropped without a release, it is released in the
/// background.
pub(crate) struct Holding {
    driver: Driver,
    /// Made of the devices: it comes after all of them and goes before any.
    on_top: Option<(Lease, Subject)>,
    /// Independent of each other, in allocation order.
    devices: Vec<(Lease, Subject)>,
    /// Files that are deleted on release.
    managed: Vec<ManagedFile>,
    /// Everything was given. Until then a release undoes, and keeps the files that are managed.
    complete: bool,
    /// This is the release in the background: where the runtime ends under it there is no other to go on in.
    last_try: bool,
}

impl Holding {
    /// Leases that have been reserved.
    pub(crate) fn new(
        driver: Driver,
        on_top: Option<(Lease, Subject)>,
        devices: Vec<(Lease, Subject)>,
    ) -> Self {
        Self {
            driver,
            on_top,
            devices,
            managed: Vec::new(),
            complete: false,
            last_try: false,
        }
    }

    /// The same with the disks and shares of mounts, parallel to the needs.
    pub(crate) fn with_mounts(mut self, needs: &Needs, disks: Vec<Lease>, shares: Vec<Lease>) -> Self {
        let disk_subjects = needs.disks.iter().map(|disk| Subject::Disk {
            mount_index: disk.mount_index,
            source: disk.source,
            path: disk.host_path.clone(),
        });
        let share_subjects = needs.shares.iter().map(|share| Subject::Share {
            mount_index: share.mount_index,
            path: share.host_path.clone(),
        });
        self.devices.extend(disks.into_iter().zip(disk_subjects));
        self.devices.extend(shares.into_iter().zip(share_subjects));
        let managed = needs.disks.iter().filter(|disk| disk.auto_manage);
        self.managed.extend(managed.map(|disk| ManagedFile {
            path: disk.host_path.clone(),
            key: file_key(disk.identity),
        }));
        self
    }

    /// Everything attached and mounted, independent devices in parallel; or nothing.
    pub(crate) async fn acquired(mut self) -> Result<Self, AllocateError> {
        match self.acquire().await {
            Ok(()) => {
                self.complete = true;
                Ok(self)
            }
            Err((subject, failure)) => {
                let clean_up = self.release().await.err();
                Err(AllocateError::Failed {
                    subject,
                    failure,
                    clean_up,
                })
            }
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
        match &self.on_top {
            Some((lease, subject)) => self
                .driver
                .acquire(*lease)
                .await
                .map_err(|failure| (subject.clone(), failure)),
            None => Ok(()),
        }
    }

    /// Gives everything back. Goes on past failures; harmless when repeated.
    pub(crate) async fn release(&mut self) -> Result<(), ReleaseError> {
        if let Some((lease, subject)) = &self.on_top {
            if let Err(failure) = self.let_go(*lease).await {
                // What it is made of is in use: taking that away would only fail, too.
                return Err(ReleaseError {
                    failures: vec![(subject.clone(), failure)],
                });
            }
            self.on_top = None;
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

    /// A release that nobody waits for. Nobody else can call it again, so it tries again itself: one failure must not
    /// keep a slot, nor spoil a layer for others, as long as the VM lives.
    pub(crate) async fn release_in_the_end(&mut self) {
        let mut pause = FIRST_PAUSE;
        for left in (0..TRIES).rev() {
            let Err(error) = self.release().await else {
                return;
            };
            if left == 0 {
                tracing::error!(%error, "a dropped allocation could not be released, and is given up");
            } else {
                tracing::warn!(%error, pause_s = pause.as_secs(), "releasing a dropped allocation; trying again");
                tokio::time::sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
            }
        }
        self.last_try = true;
    }

    /// Moves everything out for a release in the background, and leaves what holds nothing.
    pub(crate) fn take(&mut self) -> Self {
        Self {
            driver: self.driver.clone(),
            on_top: self.on_top.take(),
            devices: std::mem::take(&mut self.devices),
            managed: std::mem::take(&mut self.managed),
            complete: self.complete,
            last_try: true,
        }
    }

    /// Every lease that has not been given back, the devices in the order of allocation.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &(Lease, Subject)> {
        self.devices.iter().chain(&self.on_top)
    }

    pub(crate) fn is_released(&self) -> bool {
        self.on_top.is_none() && self.devices.is_empty()
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if self.is_released() || self.last_try {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut left = self.take();
        runtime.spawn(async move { left.release_in_the_end().await });
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
