//! Names by directory and name: a hash table in a spool.

use std::{
    hash::{BuildHasher, RandomState},
    io,
};

use crate::spool::Spool;

const ENTRY: u64 = 8;
const SMALLEST: u64 = 1024;

/// Name numbers by hash. An archive must not be able to choose colliding names: the hash is keyed anew in each
/// process. Nothing that is written depends on it.
#[derive(Debug)]
pub(crate) struct Index {
    table: Spool,
    capacity: u64,
    count: u64,
    keys: RandomState,
}

impl Index {
    /// An empty one that takes at most `memory_bytes` of memory.
    pub(crate) fn new(memory_bytes: usize) -> Self {
        Self {
            table: Spool::new(memory_bytes),
            capacity: SMALLEST,
            count: 0,
            keys: RandomState::new(),
        }
    }

    /// The hash of a name in a directory.
    pub(crate) fn hash(&self, parent: u32, name: &[u8]) -> u64 {
        self.keys.hash_one((parent, name))
    }

    /// A candidate for `hash`: call with `None` first, then with the candidate that was not it. `None` at the end.
    pub(crate) fn candidate(
        &mut self,
        hash: u64,
        after: Option<Candidate>,
    ) -> io::Result<Option<(Candidate, u32)>> {
        let mut slot = match after {
            None => hash % self.capacity,
            Some(Candidate(slot)) => (slot + 1) % self.capacity,
        };
        loop {
            let [tag, number] = self.slot(slot)?;
            if number == 0 {
                return Ok(None);
            }
            if tag == tag_of(hash) {
                return Ok(Some((Candidate(slot), number - 1)));
            }
            slot = (slot + 1) % self.capacity;
        }
    }

    /// Whether another name needs a larger table: [`Index::clear`], then all of them again.
    pub(crate) fn is_full(&self) -> bool {
        self.count * 2 >= self.capacity
    }

    /// Empties it, with room for twice as many.
    pub(crate) fn clear(&mut self) {
        self.table.clear();
        self.capacity *= 2;
        self.count = 0;
    }

    /// Adds a name's number.
    pub(crate) fn insert(&mut self, hash: u64, number: u32) -> io::Result<()> {
        let mut slot = hash % self.capacity;
        while self.slot(slot)?[1] != 0 {
            slot = (slot + 1) % self.capacity;
        }
        let [a, b, c, d] = tag_of(hash).to_le_bytes();
        let [e, f, g, h] = (number + 1).to_le_bytes();
        self.table.write(slot * ENTRY, &[a, b, c, d, e, f, g, h])?;
        self.count += 1;
        Ok(())
    }

    fn slot(&mut self, slot: u64) -> io::Result<[u32; 2]> {
        let [a, b, c, d, e, f, g, h] = self.table.read_array(slot * ENTRY)?;
        Ok([u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])])
    }
}

/// Where in the table a candidate was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate(u64);

/// The part of the hash that does not choose the slot.
fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}
