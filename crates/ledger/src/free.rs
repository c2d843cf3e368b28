//! Free slots, lowest first: O(log n) to take and to give back.

use std::collections::BTreeSet;

/// The free indices of a table.
#[derive(Debug)]
pub(crate) struct FreeSlots {
    returned: BTreeSet<usize>,
    /// Every index from here on has never been taken.
    untouched: usize,
    capacity: usize,
}

impl FreeSlots {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            returned: BTreeSet::new(),
            untouched: 0,
            capacity,
        }
    }

    /// Takes the lowest free index.
    pub(crate) fn take(&mut self) -> Option<usize> {
        if let Some(index) = self.returned.pop_first() {
            return Some(index);
        }
        let index = self.untouched;
        (index < self.capacity).then(|| {
            self.untouched += 1;
            index
        })
    }

    /// Gives one back. Whether it had been taken.
    pub(crate) fn give_back(&mut self, index: usize) -> bool {
        index < self.untouched && self.returned.insert(index)
    }

    pub(crate) fn used(&self) -> usize {
        self.untouched - self.returned.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_comes_first_and_nothing_is_given_back_twice() {
        let mut free = FreeSlots::new(3);
        assert_eq!([(); 4].map(|()| free.take()), [Some(0), Some(1), Some(2), None]);
        assert!(free.give_back(1) && !free.give_back(1) && !free.give_back(7));
        assert_eq!((free.used(), free.take(), free.take()), (2, Some(1), None));
    }
}
