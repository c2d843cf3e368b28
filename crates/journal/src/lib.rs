//! What an owner of a VM was about to do, on disk before each host step.
//!
//! The ledger is the truth while its owner lives. The journal is what is left of it when the owner is killed: every
//! step is written down before it is performed and again when its outcome is known, so that whoever comes later knows
//! everything that may have been taken ([`Replay`]). A step without an outcome counts as done when it takes something,
//! and as not done when it gives something back.
//!
//! One line of JSON a record; a last line that was cut short by a kill is what was about to be written, so its step
//! had not begun. The file is written without waiting for the disk: it is there to outlive its process, and when the
//! host itself goes down, the devices it speaks of go too.
//!
//! ```
//! use cofferdam_journal::{Journal, Replay};
//! use cofferdam_ledger::{Request, request::{HostRequest, ShareId}};
//!
//! # let dir = tempfile::tempdir()?;
//! let path = dir.path().join("journal");
//! let journal = Journal::create(&path)?;
//! let share = HostRequest::AddShare {
//!     share: ShareId(1),
//!     path: "/srv".into(),
//!     read_only: true,
//!     allowed_names: None,
//! };
//! let step = journal.begin(&Request::Host(share))?;
//! // … it is performed …
//! journal.end(step, None)?;
//! assert_eq!(Replay::read(&path)?.held.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod file;
mod record;
mod replay;

pub use crate::{
    file::Journal,
    record::{ManagedFile, Record, StepNumber},
    replay::{Held, JournalError, Replay},
};
