//! What others see of the process that owns a VM: its containers and who holds which device, and what happens to them.
//!
//! * [`inspect()`] is the first, from the living ledger: the ledger knows how many hold a slot, the containers know what each
//!   of their leases is for. It answers [`Question::Inspect`](cofferdam_owner::control::Question::Inspect).
//! * [`check()`] compares the VM's sides for [`Question::Check`](cofferdam_owner::control::Question::Check), and frees what
//!   nobody holds. [`LookedAt`] is an owner that answers both, and nothing else.
//! * [`Events`] tells the second to whoever connects to `events.sock` in the owner's directory: a line of JSON each, first
//!   those of the last while, then each as it comes. Nobody is waited for who does not read. [`Subscription`] is the other end.
//!
//! Whatever process owns the VM can serve both: they need its [`Pod`](cofferdam_pod::Pod) and its directory, nothing else.

mod answers;
mod check;
mod devices;
mod document;
mod events;
mod hub;
mod inspect;
mod subscription;
mod told;

pub use crate::{
    answers::LookedAt,
    check::{CheckError, CheckReport, FoundLine, check},
    document::{ContainerDocument, Device, Holder, Machine, MountDocument, ProcessDocument},
    events::Events,
    inspect::inspect,
    subscription::{Heard, Subscription, SubscriptionError},
    told::{Told, rfc3339, types},
};
