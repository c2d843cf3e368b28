//! Refusals of the ledger. None of them changes anything.

use crate::ledger::Table;

/// Why a reservation was refused. Nothing has been reserved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// The VM has too few free slots; everything that is missing.
    #[error("{}", shortages(.0))]
    Full(Vec<Shortage>),
    /// The device is held in a way that excludes this one.
    #[error("{reason}")]
    Conflict {
        /// Which of the wants, by its index.
        want: usize,
        /// What excludes it.
        reason: String,
    },
}

/// How much one table lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// The table.
    pub table: Table,
    /// New slots that were wanted.
    pub wanted: usize,
    /// Slots that were free.
    pub free: usize,
    /// Slots there are.
    pub total: usize,
}

fn shortages(all: &[Shortage]) -> String {
    let one = |s: &Shortage| format!("{} {} wanted, {} of {} free", s.wanted, s.table, s.free, s.total);
    let lines: Vec<_> = all.iter().map(one).collect();
    format!("the utility VM has too few slots: {}", lines.join("; "))
}

/// A lease or token that acts on nothing (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// What it stood for has been released; the slot may be somebody else's by now.
    #[error("the lease is stale: what it stood for has been released")]
    Stale,
    /// The ledger is not waiting for this outcome.
    #[error("no such step is being performed")]
    NoSuchStep,
}
