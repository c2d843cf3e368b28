//! Who owns a VM, on disk: so that others find it while it lives, and what it left when it is gone.
//!
//! Each owner has a directory named after its container or pod, below a root such as `/run/cofferdam`:
//!
//! | file | what it is |
//! |---|---|
//! | `lock` | held (flock) as long as the owner lives; the kernel lets go of it however the owner ends |
//! | `owner.json` | who that is: [`Record`] |
//! | `journal` | everything that was about to be taken: [`cofferdam_journal`] |
//! | `ended.json` | how the container ended, where its record was kept: [`Ended`] |
//! | `about.json` | what the container is: [`About`] |
//! | `control.sock` | where the owner answers: [`control`] |
//!
//! [`Root::claim`] makes one, and [`Claim::close`] removes it once nothing is left; [`Owned`] is both for the process itself. [`Root::entries`] lists them all,
//! living or not. [`remains`] finds and frees what a dead owner left; [`audit`] compares what a living one has on its
//! three sides: ledger, host devices, guest mounts.

mod about;
pub mod audit;
pub mod control;
mod ended;
mod error;
mod owned;
mod process;
mod record;
pub mod remains;
mod root;

pub use crate::{
    about::About,
    ended::Ended,
    error::OwnerError,
    owned::Owned,
    process::ProcessId,
    record::{Isolation, Record, Redirected},
    root::{Claim, Entry, Root},
};
