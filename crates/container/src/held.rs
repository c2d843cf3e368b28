//! What a container holds of its VM, lease by lease, for whoever shows who holds what.

use cofferdam_ledger::Lease;
use cofferdam_plan::Plan;

use crate::allocate::Subject;

/// One lease of a container, and what it stands for. It may have been given back meanwhile: whether it is still held, the
/// ledger knows ([`cofferdam_ledger::Ledger::guest_path`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The lease.
    pub lease: Lease,
    /// What it is for the container.
    pub subject: Subject,
    /// Where the mount is in the container; `None` for what is no mount.
    pub destination: Option<String>,
    /// Whether it came while the container ran.
    pub added: bool,
}

/// Of leases that were reserved for a plan.
pub(crate) fn of_plan<'a>(leases: impl Iterator<Item = &'a (Lease, Subject)>, plan: &Plan) -> Vec<Held> {
    let destination = |index: usize| {
        let entry = plan.spec.pointer(&format!("/mounts/{index}/destination"))?;
        entry.as_str().map(str::to_owned)
    };
    let one = |(lease, subject): &(Lease, Subject)| Held {
        lease: *lease,
        subject: subject.clone(),
        destination: subject.mount_index().and_then(destination),
        added: false,
    };
    leases.map(one).collect()
}

/// Of a mount that came while the container ran.
pub(crate) fn added<'a>(
    leases: impl Iterator<Item = &'a (Lease, Subject)>,
    destination: &str,
) -> impl Iterator<Item = Held> {
    leases.map(move |(lease, subject)| Held {
        lease: *lease,
        subject: subject.clone(),
        destination: Some(destination.to_owned()),
        added: true,
    })
}
