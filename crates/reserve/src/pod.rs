//! All containers of a pod, reserved together: every one of them, or none.

use cofferdam_ledger::{Group, GroupRefusal, GroupShare, Ledger, ReserveError};
use cofferdam_plan::Plan;

use crate::{Reserved, apart, wants};

/// Why nothing was reserved for a pod.
#[derive(Debug, thiserror::Error)]
#[error("{}{source}", place(*container, *mount_index, shares))]
pub struct PodRefusal {
    /// The index of the container at fault; where the VM has too few slots, the first container that does not fit
    /// beside those before it.
    pub container: usize,
    /// The index of the mount at fault in that container; `None` where it is the root filesystem, or where the VM has
    /// too few slots.
    pub mount_index: Option<usize>,
    /// What the ledger said.
    pub source: ReserveError,
    /// Where the VM has too few slots: what each container wants of them. What containers share counts for the first.
    pub shares: Vec<GroupShare>,
}

fn place(container: usize, mount_index: Option<usize>, shares: &[GroupShare]) -> String {
    if !shares.is_empty() {
        let shares: Vec<_> = shares.iter().map(ToString::to_string).collect();
        return format!("{}: ", shares.join(", "));
    }
    match mount_index {
        Some(index) => format!("container {container}: mount {index}: "),
        None => format!("container {container}: "),
    }
}

/// Takes a slot for everything all of these plans need of their utility VM, or nothing at all. A layer, a disk or a
/// directory that several of them use takes one slot.
///
/// The plans need container roots of their own. As nothing is attached before all of them have been reserved, a disk
/// that one reads and another writes is attached writable, whichever comes first.
///
/// # Errors
/// [`PodRefusal`]; the ledger is as it was.
pub fn reserve_pod(ledger: &mut Ledger, plans: &[Plan]) -> Result<Vec<Reserved>, PodRefusal> {
    let leases = ledger.reserve_each(plans.iter().map(group).collect());
    let leases = leases.map_err(|refusal| refused(plans, refusal))?;
    let parts = plans.iter().zip(leases);
    Ok(parts.map(|(plan, leases)| apart(&plan.needs, leases)).collect())
}

fn group(plan: &Plan) -> Group<'_> {
    Group {
        wants: wants::of_devices(&plan.needs),
        last: Box::new(|guest_paths| wants::of_overlay(&plan.needs, guest_paths)),
    }
}

fn refused(plans: &[Plan], refusal: GroupRefusal) -> PodRefusal {
    let needs = plans.get(refusal.group).map(|plan| &plan.needs);
    let mount_index = match &refusal.error {
        ReserveError::Conflict { want, .. } => needs.and_then(|needs| wants::mount_index(needs, *want)),
        ReserveError::Full(_) => None,
    };
    PodRefusal {
        container: refusal.group,
        mount_index,
        source: refusal.error,
        shares: refusal.shares,
    }
}
