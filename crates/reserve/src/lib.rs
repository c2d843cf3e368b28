//! The slots a plan needs, reserved: all of them, or none.
//!
//! Whoever allocates and whoever only shows what allocation would do both come through [`reserve`], so that what is
//! shown is what happens. [`reserve_pod`] does the same for several containers of one VM at once. Nothing is performed here: the leases are what [`Ledger::next`] is asked about.
//!
//! ```
//! use cofferdam_ledger::{Ledger, address::Limits};
//! use cofferdam_plan::{Facts, FileFacts, FileId, FileKind, PlanRequest, Spec, plan};
//!
//! let spec = Spec::parse(r#"{"root": {"path": "/srv/root"}}"#)?;
//! let mut facts = Facts::default();
//! let root = FileFacts {
//!     kind: FileKind::Directory,
//!     identity: FileId { device: 1, inode: 2 },
//!     image_problem: None,
//! };
//! facts.insert("/srv/root".into(), Ok(root));
//! let request = PlanRequest {
//!     spec: &spec,
//!     bundle: "/bundle".as_ref(),
//!     container_root: "/run/gcs/c/1",
//!     process_isolation: false,
//! };
//! let plan = plan(request, &facts)?;
//! let mut ledger = Ledger::new(Limits::default());
//! let reserved = cofferdam_reserve::reserve(&mut ledger, &plan)?;
//! assert_eq!(ledger.guest_path(reserved.shares[0]), Some("/run/gcs/c/1/rootfs"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod pod;
mod wants;

pub use crate::{
    pod::{PodRefusal, reserve_pod},
    wants::file_key,
};

use cofferdam_ledger::{Lease, Ledger, ReserveError};
use cofferdam_plan::{MountPlan, Needs, Plan};

/// The leases of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "leases are released, or they hold their slots for the VM's life"]
pub struct Reserved {
    /// Read-only layers, topmost first.
    pub layers: Vec<Lease>,
    /// The scratch disk.
    pub scratch: Option<Lease>,
    /// The overlay of layers and scratch.
    pub overlay: Option<Lease>,
    /// The disks, parallel to the plan's `needs.disks`.
    pub disks: Vec<Lease>,
    /// The shares, parallel to the plan's `needs.shares`.
    pub shares: Vec<Lease>,
}

impl Reserved {
    /// Every lease in an order they can be allocated in one after another: the overlay after what it is made of.
    /// They are released in the reverse order.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = Lease> + '_ {
        self.layers
            .iter()
            .chain(&self.scratch)
            .chain(&self.overlay)
            .chain(&self.disks)
            .chain(&self.shares)
            .copied()
    }
}

/// Why nothing was reserved.
#[derive(Debug, thiserror::Error)]
#[error("{}{source}", mount_index.map(|index| format!("mount {index}: ")).unwrap_or_default())]
pub struct ReserveRefusal {
    /// The index of the mount at fault; `None` where it is the root filesystem, or where the VM has too few slots for
    /// all of them together.
    pub mount_index: Option<usize>,
    /// What the ledger said.
    pub source: ReserveError,
}

/// Takes a slot for everything a plan needs of its utility VM, or nothing at all.
///
/// A plan for process isolation needs no utility VM: there is nothing to reserve for it.
///
/// # Errors
/// [`ReserveRefusal`]; the ledger is as it was.
pub fn reserve(ledger: &mut Ledger, plan: &Plan) -> Result<Reserved, ReserveRefusal> {
    let needs = &plan.needs;
    let wants = wants::of_devices(needs);
    let taken = ledger.reserve_with(wants, |guest_paths| wants::of_overlay(needs, guest_paths));
    let leases = taken.map_err(|source| ReserveRefusal {
        mount_index: match &source {
            ReserveError::Conflict { want, .. } => wants::mount_index(needs, *want),
            ReserveError::Full(_) => None,
        },
        source,
    })?;
    Ok(apart(needs, leases))
}

/// Leases in the order of the wants, as what they stand for.
fn apart(needs: &Needs, leases: Vec<Lease>) -> Reserved {
    let mut leases = leases.into_iter();
    let layers = needs.layers.as_ref().map_or(0, |layers| layers.read_only.len());
    Reserved {
        layers: leases.by_ref().take(layers).collect(),
        scratch: needs.layers.as_ref().and_then(|_| leases.next()),
        disks: leases.by_ref().take(needs.disks.len()).collect(),
        shares: leases.by_ref().take(needs.shares.len()).collect(),
        overlay: leases.next(),
    }
}

/// The leases of one mount of a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "leases are released, or they hold their slots for the VM's life"]
pub struct ReservedMount {
    /// The disks, parallel to the plan's `needs.disks`.
    pub disks: Vec<Lease>,
    /// The shares, parallel to the plan's `needs.shares`.
    pub shares: Vec<Lease>,
    /// The mount in the container. It is allocated after the others, and released before them.
    pub in_container: Lease,
}

/// Takes a slot for everything a further mount of a running container needs, or nothing at all.
///
/// # Errors
/// [`ReserveRefusal`]; the ledger is as it was.
pub fn reserve_mount(
    ledger: &mut Ledger,
    container: &str,
    plan: &MountPlan,
) -> Result<ReservedMount, ReserveRefusal> {
    let wants = wants::of_devices(&plan.needs);
    let in_container = wants::in_container(container, plan);
    let refused = |source| ReserveRefusal {
        mount_index: Some(plan.index),
        source,
    };
    let mut leases = ledger
        .reserve_with(wants, |_| Some(in_container))
        .map_err(refused)?
        .into_iter();
    let disks = leases.by_ref().take(plan.needs.disks.len()).collect();
    let shares = leases.by_ref().take(plan.needs.shares.len()).collect();
    let in_container = leases.next();
    Ok(ReservedMount {
        disks,
        shares,
        in_container: in_container.expect("invariant: one want more than devices was reserved"),
    })
}
