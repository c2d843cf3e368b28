//! Reservation: slots for everything that is wanted, or for nothing.
//!
//! What is wanted comes in groups, one a container. All groups of a pod are admitted together: they share layers,
//! disks and directories as they would when they are allocated one after another, and what is missing is said for all
//! of them at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    Lease, Ledger, ReserveError, Shortage, Table, Want, device::FileKey, ledger::Taken, slots::NoSlot,
};

/// A want that depends on the guest paths of others.
pub type LastWant<'a> = Box<dyn FnOnce(&[String]) -> Option<Want> + 'a>;

/// What one container wants.
pub struct Group<'a> {
    /// Everything that depends on nothing else.
    pub wants: Vec<Want>,
    /// One want more that depends on the guest paths of the others, which stand in the order of the wants.
    pub last: LastWant<'a>,
}

/// Why the groups of a pod were refused. Nothing has been reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRefusal {
    /// The group of the want at fault; where there are too few slots, the first group that does not fit beside those
    /// before it.
    pub group: usize,
    /// What is wrong: for a conflict, the want's index in that group; for a shortage, what all groups lack together.
    pub error: ReserveError,
    /// For a shortage: the new slots each group wants of the tables that have too few. What groups share counts for
    /// the first of them.
    pub shares: Vec<GroupShare>,
}

/// How many new slots of a table one group wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupShare {
    /// The group.
    pub group: usize,
    /// The table.
    pub table: Table,
    /// New slots, those that are not to be had included.
    pub wanted: usize,
}

impl fmt::Display for GroupShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container {} wants {} {}", self.group, self.wanted, self.table)
    }
}

/// What has been taken so far, and what is missing.
#[derive(Default)]
struct Admission {
    taken: Vec<Taken>,
    /// A file that is wanted twice lacks one slot; what has no file lacks one each time.
    missing: BTreeMap<Table, BTreeSet<Option<FileKey>>>,
    /// New slots by table and group, whether they were to be had or not.
    new: BTreeMap<(Table, usize), usize>,
    /// The first group that lacks something.
    first_short: Option<usize>,
}

impl Admission {
    /// Notes a slot that is not to be had.
    fn lacks(&mut self, group: usize, table: Table, file: Option<FileKey>) {
        if self.missing.entry(table).or_default().insert(file) {
            *self.new.entry((table, group)).or_default() += 1;
        }
        self.first_short.get_or_insert(group);
    }

    /// Notes one that was taken.
    fn has(&mut self, group: usize, taken: Taken) {
        if taken.is_new() {
            *self.new.entry((taken.lease().table(), group)).or_default() += 1;
        }
        self.taken.push(taken);
    }
}

impl Ledger {
    /// Takes a slot for each want, or none at all. The leases stand in the order of the wants.
    ///
    /// # Errors
    /// [`ReserveError::Full`] with everything that is missing, or the first conflict.
    pub fn reserve(&mut self, wants: Vec<Want>) -> Result<Vec<Lease>, ReserveError> {
        self.reserve_with(wants, |_| None)
    }

    /// Like [`Ledger::reserve`], with one want more that depends on the guest paths of the others: they stand in the
    /// order of the wants, and its lease comes last.
    ///
    /// # Errors
    /// As for [`Ledger::reserve`].
    pub fn reserve_with(
        &mut self,
        wants: Vec<Want>,
        last: impl FnOnce(&[String]) -> Option<Want>,
    ) -> Result<Vec<Lease>, ReserveError> {
        let last = Box::new(last);
        let leases = self.reserve_each(vec![Group { wants, last }]);
        Ok(leases
            .map_err(|refusal| refusal.error)?
            .into_iter()
            .flatten()
            .collect())
    }

    /// Takes everything every group wants, or nothing at all. The leases stand group by group, each group's as
    /// [`Ledger::reserve_with`] has them.
    ///
    /// # Errors
    /// The first conflict; else everything that is missing for all of them together.
    pub fn reserve_each(&mut self, groups: Vec<Group<'_>>) -> Result<Vec<Vec<Lease>>, GroupRefusal> {
        let mut admission = Admission::default();
        let mut counts = Vec::with_capacity(groups.len());
        for (group, wanted) in groups.into_iter().enumerate() {
            let before = admission.taken.len();
            if let Err((want, reason)) = self.admit(group, wanted, &mut admission) {
                self.undo_all(admission.taken);
                return Err(GroupRefusal {
                    group,
                    error: ReserveError::Conflict { want, reason },
                    shares: Vec::new(),
                });
            }
            counts.push(admission.taken.len() - before);
        }
        if let Some(group) = admission.first_short {
            return Err(self.short(group, admission));
        }
        let mut leases = admission.taken.iter().map(Taken::lease);
        Ok(counts
            .into_iter()
            .map(|count| leases.by_ref().take(count).collect())
            .collect())
    }

    /// Takes what there is for one group, and notes the rest.
    fn admit(
        &mut self,
        group: usize,
        wanted: Group<'_>,
        admission: &mut Admission,
    ) -> Result<(), (usize, String)> {
        let begin = admission.taken.len();
        let count = wanted.wants.len();
        for (want, need) in wanted.wants.into_iter().enumerate() {
            self.admit_one(group, begin, need, admission)
                .map_err(|reason| (want, reason))?;
        }
        if admission.taken.len() - begin < count {
            // Without all of the others there are no guest paths the last one could depend on.
            return Ok(());
        }
        let path = |one: &Taken| self.guest_path(one.lease()).unwrap_or_default().to_owned();
        let paths: Vec<_> = admission.taken[begin..].iter().map(path).collect();
        match (wanted.last)(&paths) {
            Some(need) => self
                .admit_one(group, begin, need, admission)
                .map_err(|reason| (count, reason)),
            None => Ok(()),
        }
    }

    fn admit_one(
        &mut self,
        group: usize,
        begin: usize,
        need: Want,
        admission: &mut Admission,
    ) -> Result<(), String> {
        let file = need.file();
        match self.take_with(&admission.taken[begin..], need) {
            Ok(taken) => admission.has(group, taken),
            Err((table, NoSlot::Full)) => admission.lacks(group, table, file),
            Err((_, NoSlot::Conflict(reason))) => return Err(reason),
        }
        Ok(())
    }

    /// Gives back what was taken, and says everything that is missing.
    fn short(&mut self, group: usize, admission: Admission) -> GroupRefusal {
        self.undo_all(admission.taken);
        let new = &admission.new;
        let shortage = |table: &Table| {
            let usage = self.machine(*table).usage();
            let of_table = new.iter().filter(|((of, _), _)| of == table);
            Shortage {
                table: *table,
                wanted: of_table.map(|(_, count)| count).sum(),
                free: usage.total - usage.used,
                total: usage.total,
            }
        };
        let shortages = admission.missing.keys().map(shortage).collect();
        let shares = new
            .iter()
            .filter(|((table, _), _)| admission.missing.contains_key(table))
            .map(|(&(table, group), &wanted)| GroupShare { group, table, wanted });
        GroupRefusal {
            group,
            error: ReserveError::Full(shortages),
            shares: shares.collect(),
        }
    }
}
