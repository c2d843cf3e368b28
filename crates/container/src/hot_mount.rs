//! Mounts of a running container: added and removed through the same plan, ledger and driver as those of its spec.
//!
//! [`HotMount`] is one of them. [`Mounts`] are all of a container: the allocation owns them, so that releasing the
//! container releases them too, and whoever serves requests meanwhile has them beside it.
//!
//! ```no_run
//! # async fn example(
//! #     allocation: &cofferdam_container::Allocation,
//! #     mount: &cofferdam_plan::Mount,
//! #     base: &std::path::Path,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let mounts = allocation.mounts().clone();
//! let plan = mounts.plan(mount, base, &|_image| Ok(()))?;
//! mounts.add("container-1", &plan).await?;
//! mounts.remove(&plan.destination).await?;
//! # Ok(())
//! # }
//! ```

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cofferdam_plan::{
    Mount, MountPlan, MountRequest, Plan, PlanError, container_destination, plan_mount, wanted_by_mount,
};
use cofferdam_reserve::{ReservedMount, reserve_mount};
use cofferdam_vm::Driver;
use tokio::sync::Notify;

use crate::{
    allocate::{AllocateError, ReleaseError, Subject},
    facts::{self, ImageCheck},
    held::{self, Held},
    holding::Holding,
};

/// A mount that a running container was given. Dropped without being removed, it is removed in the background.
#[must_use = "a mount is removed, or the VM holds it"]
pub struct HotMount {
    holding: Holding,
    mounted: Mounted,
}

/// What a mount of a running container is, for a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Its number among the container's mounts, those of the spec included.
    pub index: usize,
    /// Where in the container.
    pub destination: String,
    /// The file, directory or device of the host; a `sandbox://` source is none of the host's.
    pub host_path: Option<PathBuf>,
    /// Mounted read-only.
    pub read_only: bool,
}

impl HotMount {
    /// Attaches what the plan needs, mounts it in the VM and brings it into the running container; or does nothing.
    ///
    /// # Errors
    /// [`AllocateError`]; what had been done was undone, but for what the error names. A file that would be deleted on
    /// removal is kept then.
    pub async fn add(driver: &Driver, container: &str, plan: &MountPlan) -> Result<Self, AllocateError> {
        driver.check_container_mounts()?;
        let reserved = reserve_mount(&mut driver.ledger(), container, plan)?;
        let ReservedMount {
            disks,
            shares,
            in_container,
        } = reserved;
        let subject = Subject::InContainer {
            mount_index: plan.index,
            destination: plan.destination.clone(),
        };
        let holding = Holding::new(driver.clone(), Some((in_container, subject)), Vec::new())
            .with_mounts(&plan.needs, disks, shares)
            .acquired()
            .await?;
        let disks = plan.needs.disks.iter().map(|disk| disk.host_path.clone());
        let shares = plan.needs.shares.iter().map(|share| {
            let names = share.allowed_names.iter().flatten();
            names.fold(share.host_path.clone(), |directory, name| directory.join(name))
        });
        Ok(Self {
            holding,
            mounted: Mounted {
                index: plan.index,
                destination: plan.destination.clone(),
                host_path: disks.chain(shares).next(),
                read_only: plan.read_only,
            },
        })
    }

    /// Takes it out of the container, unmounts it in the VM and gives the device back; an auto-managed file is deleted.
    /// A container that has ended has no mounts any more, so then only the rest is left to do. Harmless when repeated;
    /// after an error it goes on with what is left.
    ///
    /// # Errors
    /// What could not be given back; a mount that is in use stays whole.
    pub async fn remove(&mut self) -> Result<(), ReleaseError> {
        self.holding.release().await
    }

    /// What it is.
    #[must_use]
    pub fn mounted(&self) -> &Mounted {
        &self.mounted
    }

    /// Whether nothing of it is held any more.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.holding.is_released()
    }
}

/// Why a mount of a running container was not added or removed.
#[derive(Debug, thiserror::Error)]
pub enum HotMountError {
    /// It could not be allocated.
    #[error(transparent)]
    Allocate(#[from] AllocateError),
    /// It could not be given back, and is there still.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The destination is none that a mount can have.
    #[error(transparent)]
    Destination(#[from] PlanError),
    /// Nothing was added there, or it is being removed already.
    #[error("no mount was added on {destination} of the running container")]
    NotMounted {
        /// The destination.
        destination: String,
    },
    /// The container's mounts are being released, or have been.
    #[error("the container is being released: no mount can be added any more")]
    Closed,
}

/// All mounts that one container got while it runs.
pub struct Mounts {
    driver: Driver,
    container_root: String,
    state: Mutex<State>,
    /// Told whenever an addition or a removal has ended.
    ended: Notify,
}

#[derive(Default)]
struct State {
    /// No mount of the container has had it, nor any number above.
    next_index: usize,
    /// Additions and removals that are being performed.
    under_way: usize,
    closed: bool,
    /// By their numbers.
    mounts: Vec<HotMount>,
}

impl Mounts {
    pub(crate) fn of(driver: Driver, plan: &Plan) -> Self {
        let state = State {
            next_index: plan.spec["mounts"].as_array().map_or(0, Vec::len),
            ..State::default()
        };
        Self {
            driver,
            container_root: plan.container_root.clone(),
            state: Mutex::new(state),
            ended: Notify::new(),
        }
    }

    /// Looks at the mount's source on the host and plans it, under a number of its own. A relative source starts at
    /// `base`.
    ///
    /// # Errors
    /// The refusal; nothing was touched.
    pub fn plan(
        &self,
        mount: &Mount,
        base: &Path,
        check_image: ImageCheck<'_>,
    ) -> Result<MountPlan, PlanError> {
        let index = {
            let mut state = self.lock();
            state.next_index += 1;
            state.next_index - 1
        };
        let wanted = wanted_by_mount(mount, base).into_iter().collect();
        let request = MountRequest {
            mount,
            base,
            container_root: &self.container_root,
            index,
        };
        plan_mount(request, &facts::gather(wanted, check_image))
    }

    /// Adds a mount to the container, which runs. `plan` is one of [`Mounts::plan`].
    ///
    /// # Errors
    /// [`HotMountError::Allocate`], and [`HotMountError::Closed`] once the release has begun.
    pub async fn add(&self, container: &str, plan: &MountPlan) -> Result<Mounted, HotMountError> {
        let _under_way = self.begin(false)?;
        let mount = HotMount::add(&self.driver, container, plan).await?;
        let mounted = mount.mounted.clone();
        self.lock().put(mount);
        Ok(mounted)
    }

    /// Removes the mount on a destination. After an error the mount is there still, and it can be called again.
    ///
    /// # Errors
    /// [`HotMountError::NotMounted`], or [`HotMountError::Release`] with what keeps it.
    pub async fn remove(&self, destination: &str) -> Result<(), HotMountError> {
        let destination = container_destination(destination)?;
        let _under_way = self.begin(true)?;
        let taken = self.lock().take(&destination);
        let Some(mut mount) = taken else {
            return Err(HotMountError::NotMounted { destination });
        };
        let removed = mount.remove().await;
        if removed.is_err() {
            self.lock().put(mount);
        }
        Ok(removed?)
    }

    /// Every mount that was added and not removed, in the order they were planned.
    #[must_use]
    pub fn list(&self) -> Vec<Mounted> {
        let state = self.lock();
        state.mounts.iter().map(|mount| mount.mounted.clone()).collect()
    }

    /// What they hold of the VM. One that is just being added or removed is not among them.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        let state = self.lock();
        let of = |mount: &HotMount| {
            held::added(mount.holding.leases(), &mount.mounted.destination).collect::<Vec<_>>()
        };
        state.mounts.iter().flat_map(of).collect()
    }

    /// Whether there is none, and none is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let state = self.lock();
        state.mounts.is_empty() && state.under_way == 0
    }

    /// Removes all of them, the latest first; from now on none can be added. Waits for what is being performed. Goes on
    /// past failures; harmless when repeated.
    ///
    /// # Errors
    /// Everything that could not be given back.
    pub async fn release(&self) -> Result<(), ReleaseError> {
        self.lock().closed = true;
        self.quiet().await;
        let mut mounts = std::mem::take(&mut self.lock().mounts);
        let mut outcomes = Vec::new();
        // One may lie on another.
        while let Some(mut mount) = mounts.pop() {
            let outcome = mount.remove().await;
            if outcome.is_err() {
                self.lock().put(mount);
            }
            outcomes.push(outcome);
        }
        ReleaseError::of_all(outcomes)
    }

    /// Resolves when nothing is being performed.
    async fn quiet(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Before looking, so that no end is missed.
            ended.as_mut().enable();
            if self.lock().under_way == 0 {
                return;
            }
            ended.await;
        }
    }

    fn begin(&self, even_if_closed: bool) -> Result<UnderWay<'_>, HotMountError> {
        let mut state = self.lock();
        if state.closed && !even_if_closed {
            return Err(HotMountError::Closed);
        }
        state.under_way += 1;
        Ok(UnderWay(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in it is ever left half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, mount: HotMount) {
        let index = mount.mounted.index;
        let at = self.mounts.partition_point(|other| other.mounted.index < index);
        self.mounts.insert(at, mount);
    }

    fn take(&mut self, destination: &str) -> Option<HotMount> {
        let at = self
            .mounts
            .iter()
            .position(|mount| mount.mounted.destination == destination)?;
        Some(self.mounts.remove(at))
    }
}

/// An addition or a removal that is being performed, whatever becomes of it.
struct UnderWay<'a>(&'a Mounts);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
        self.0.ended.notify_waiters();
    }
}
