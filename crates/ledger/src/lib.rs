//! What a utility VM has given away: a generic machine of slots, without I/O.
//!
//! The ledger decides and remembers; it performs nothing. Whoever drives it asks for the next step of a lease
//! ([`Ledger::next`]), performs it, and reports the outcome ([`Ledger::outcome`]). Reservation is all or nothing and
//! needs no step at all.
//!
//! * `slots` is the machine: a table of slots. SCSI disks, persistent memory, shares, combined layers and mounts of
//!   running containers are five of them. `slot` is one: a device, its mounts, who holds them.
//! * [`state`] has the states of a device and of a mount, with their tables.
//! * [`device`] says what a need turns into: which table, and the host and guest request of each step; `injected`
//!   says it for mounts of running containers.
//! * `admission` reserves for one container, or for all of a pod at once.
//! * [`request`] has those requests, [`address`] the places and limits.
//!
//! ```
//! use cofferdam_ledger::{Ledger, Next, Want, address::Limits, device::{DiskNeed, FileKey}, request::DiskKind};
//!
//! let mut ledger = Ledger::new(Limits::default());
//! let disk = DiskNeed {
//!     path: "/data.vhdx".into(),
//!     key: FileKey { device: 1, inode: 7 },
//!     kind: DiskKind::Virtual,
//!     guest_path: "/run/gcs/c/1/mounts/m0".into(),
//!     read_only: false,
//!     auto_manage: false,
//! };
//! let leases = ledger.reserve(vec![Want::Disk(disk)])?;
//! let Next::Perform(step) = ledger.next(leases[0]) else { panic!("a reserved disk is to be attached") };
//! ledger.outcome(&step.token, Ok(()))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod address;
mod admission;
pub mod device;
mod error;
mod free;
mod injected;
mod ledger;
pub mod request;
mod settings;
mod slot;
mod slots;
pub mod state;
mod view;

pub use crate::{
    admission::{Group, GroupRefusal, GroupShare, LastWant},
    device::Want,
    error::{LeaseError, ReserveError, Shortage},
    ledger::{Lease, Ledger, Next, Step, StepFailure, StepToken, Table},
    slot::Part,
    view::{LedgerView, MountView, SlotView, Usage},
};

/// What the guest or the host is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// A step of the host.
    Host(request::HostRequest),
    /// A step of the guest.
    Guest(request::GuestRequest),
}
