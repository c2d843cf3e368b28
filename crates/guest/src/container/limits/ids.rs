//! Lists of CPUs or memory nodes as the kernel writes them: `0-3,7`.

use std::{collections::BTreeSet, fmt};

/// The highest number a list may hold; the kernel itself has fewer CPUs.
const HIGHEST: u32 = 8191;

/// A set of CPUs or memory nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ids(BTreeSet<u32>);

impl Ids {
    /// Reads a list; `None` if it is none.
    pub(super) fn parse(list: &str) -> Option<Self> {
        let mut ids = BTreeSet::new();
        for part in list.trim().split(',').map(str::trim) {
            if part.is_empty() {
                continue;
            }
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            if first > last || last > HIGHEST {
                return None;
            }
            ids.extend(first..=last);
        }
        Some(Self(ids))
    }

    /// What is in both.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = ids.next() {
            let mut last = first;
            while let Some(next) = ids.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_back_in_their_shortest_form() {
        for (given, shortest) in [
            ("", ""),
            ("0\n", "0"),
            ("3,1,2", "1-3"),
            ("0-1, 4 ,6-7,7", "0-1,4,6-7"),
            ("8191", "8191"),
        ] {
            assert_eq!(Ids::parse(given).unwrap().to_string(), shortest, "{given:?}");
        }
    }

    #[test]
    fn what_is_no_list_or_would_be_endless_is_refused() {
        for given in ["a", "1-", "-1", "3-1", "0-4294967295", "8192", "1;2", "0x1"] {
            assert_eq!(Ids::parse(given), None, "{given:?}");
        }
    }

    #[test]
    fn only_what_is_in_both_is_left() {
        let (wanted, there) = (Ids::parse("1-3,9").unwrap(), Ids::parse("0-2").unwrap());
        assert_eq!(wanted.and(&there).to_string(), "1-2");
        assert!(Ids::parse("5").unwrap().and(&there).is_empty());
    }
}
