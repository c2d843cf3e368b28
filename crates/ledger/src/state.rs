//! The states of a device and of a mount, and every transition there is.
//!
//! Attachment and mount are separate lives: a device is attached once and mounted at any number of guest paths.
//!
//! A device:
//!
//! | from | event | to |
//! |---|---|---|
//! | `Reserved` | attach begins | `Attaching` |
//! | `Reserved` | the last holder leaves | `Free` |
//! | `Attaching` | it succeeds | `Attached` |
//! | `Attaching` | it fails | `Broken` |
//! | `Broken` | the last holder's detach begins | `Detaching` |
//! | `Attached` | the last holder's eject begins | `Ejecting` |
//! | `Ejecting` | it succeeds | `Ejected` |
//! | `Ejecting` | it fails | `Attached` |
//! | `Ejected` | detach begins | `Detaching` |
//! | `Detaching` | it succeeds | `Detached` |
//! | `Detaching` | it fails | `Ejected` |
//! | `Detached` | deletion of an auto-managed file begins | `Deleting` |
//! | `Deleting` | it succeeds, and nothing is left to delete; or it fails | `Detached` |
//! | `Detached` | nothing is to be deleted | `Free` |
//! | `Detached` | somebody has come to hold it meanwhile | `Reserved` |
//!
//! A mount:
//!
//! | from | event | to |
//! |---|---|---|
//! | `Wanted` | mount begins | `Mounting` |
//! | `Wanted` | its last holder leaves | `Gone` |
//! | `Mounting` | it succeeds | `Mounted` |
//! | `Mounting` | it fails | `Failed` |
//! | `Failed` | its last holder's unmount begins | `Unmounting` |
//! | `Mounted` | its last holder's unmount begins | `Unmounting` |
//! | `Unmounting` | it succeeds | `Gone` |
//! | `Unmounting` | it fails | `Failed` |
//! | `Gone` | somebody has come to hold it meanwhile, and mount begins | `Mounting` |
//!
//! `Broken` and `Failed` are no dead ends: the step may have taken effect although its answer was an error or never
//! came, so leaving them goes through the removal, which is idempotent. That holds for an unmount too: after a failed
//! one nobody knows what is at the path, so somebody who has come to hold it meanwhile is told of the failure rather
//! than that it is mounted.

use serde::{Deserialize, Serialize};

/// A device's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DeviceState {
    /// Nobody's.
    Free,
    /// Somebody's, and nothing has been done yet.
    Reserved,
    /// The host is plugging it in.
    Attaching,
    /// It is there.
    Attached,
    /// Plugging it in failed; it may be there nevertheless.
    Broken,
    /// The guest is letting go of it.
    Ejecting,
    /// The guest has let go of it.
    Ejected,
    /// The host is pulling it out.
    Detaching,
    /// It is out.
    Detached,
    /// Its auto-managed file is being deleted.
    Deleting,
}

/// What happens to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceEvent {
    /// The next step of the way in, or of the way out, is being performed.
    Begin,
    /// It succeeded.
    Done,
    /// It failed.
    Failed,
    /// Nobody holds it, and nothing is left to do.
    Leave,
    /// Somebody holds it although it is out.
    Renew,
}

use DeviceEvent::{Begin, Done, Failed, Leave, Renew};
use DeviceState::{
    Attached, Attaching, Broken, Deleting, Detached, Detaching, Ejected, Ejecting, Free, Reserved,
};

/// Every transition of a device; what is not here does not happen.
pub const DEVICE_TABLE: &[(DeviceState, DeviceEvent, DeviceState)] = &[
    (Reserved, Begin, Attaching),
    (Reserved, Leave, Free),
    (Attaching, Done, Attached),
    (Attaching, Failed, Broken),
    (Broken, Begin, Detaching),
    (Attached, Begin, Ejecting),
    (Ejecting, Done, Ejected),
    (Ejecting, Failed, Attached),
    (Ejected, Begin, Detaching),
    (Detaching, Done, Detached),
    (Detaching, Failed, Ejected),
    (Detached, Begin, Deleting),
    (Deleting, Done, Detached),
    (Deleting, Failed, Detached),
    (Detached, Leave, Free),
    (Detached, Renew, Reserved),
];

impl DeviceState {
    /// The state after an event; `None` where the table has no such transition.
    #[must_use]
    pub fn after(self, event: DeviceEvent) -> Option<Self> {
        DEVICE_TABLE
            .iter()
            .find(|(from, on, _)| (*from, *on) == (self, event))
            .map(|(_, _, to)| *to)
    }

    /// Whether a step is being performed: whoever else wants something waits for its outcome.
    #[must_use]
    pub fn is_busy(self) -> bool {
        matches!(self, Attaching | Ejecting | Detaching | Deleting)
    }
}

/// A mount's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MountState {
    /// Not mounted, and not tried.
    Wanted,
    /// The guest is mounting it.
    Mounting,
    /// It is mounted.
    Mounted,
    /// Mounting or unmounting it failed; it may be there, or not.
    Failed,
    /// The guest is unmounting it.
    Unmounting,
    /// It is gone.
    Gone,
}

/// Every transition of a mount, in terms of [`DeviceEvent`].
pub const MOUNT_TABLE: &[(MountState, DeviceEvent, MountState)] = &[
    (MountState::Wanted, Begin, MountState::Mounting),
    (MountState::Wanted, Leave, MountState::Gone),
    (MountState::Mounting, Done, MountState::Mounted),
    (MountState::Mounting, Failed, MountState::Failed),
    (MountState::Failed, Begin, MountState::Unmounting),
    (MountState::Mounted, Begin, MountState::Unmounting),
    (MountState::Unmounting, Done, MountState::Gone),
    (MountState::Unmounting, Failed, MountState::Failed),
    (MountState::Gone, Begin, MountState::Mounting),
];

impl MountState {
    /// The state after an event; `None` where the table has no such transition.
    #[must_use]
    pub fn after(self, event: DeviceEvent) -> Option<Self> {
        MOUNT_TABLE
            .iter()
            .find(|(from, on, _)| (*from, *on) == (self, event))
            .map(|(_, _, to)| *to)
    }

    /// Whether a step is being performed.
    #[must_use]
    pub fn is_busy(self) -> bool {
        matches!(self, Self::Mounting | Self::Unmounting)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_state_of_a_device_leads_back_to_free() {
        let states: BTreeSet<_> = DEVICE_TABLE
            .iter()
            .flat_map(|(from, _, to)| [*from, *to])
            .collect();
        for start in states {
            let mut reached = BTreeSet::from([start]);
            while !reached.contains(&Free) {
                let more: BTreeSet<_> = reached
                    .iter()
                    .flat_map(|s| [Begin, Done, Leave].map(|e| s.after(e)))
                    .flatten()
                    .collect();
                assert!(!more.is_subset(&reached), "{start:?} never becomes free");
                reached.extend(more);
            }
        }
    }

    #[test]
    fn the_documented_tables_are_the_tables() {
        let text = include_str!("state.rs");
        let documented = |from: String, to: String| {
            text.lines().filter(|l| l.starts_with("//! | `")).any(|line| {
                let cells: Vec<_> = line
                    .split('|')
                    .map(|cell| cell.trim().trim_matches('`').to_owned())
                    .collect();
                cells[1] == from && cells[3] == to
            })
        };
        for (from, event, to) in DEVICE_TABLE {
            assert!(
                documented(format!("{from:?}"), format!("{to:?}")),
                "{from:?} {event:?} {to:?}"
            );
        }
        for (from, event, to) in MOUNT_TABLE {
            assert!(
                documented(format!("{from:?}"), format!("{to:?}")),
                "{from:?} {event:?} {to:?}"
            );
        }
        // One row speaks of two transitions: whatever becomes of a deletion, the device is out.
        let rows = text.lines().filter(|line| line.starts_with("//! | `")).count();
        assert_eq!(
            rows + 1,
            DEVICE_TABLE.len() + MOUNT_TABLE.len(),
            "a documented row without a transition"
        );
    }

    #[test]
    fn no_event_leads_from_one_state_to_two() {
        let pairs: Vec<_> = DEVICE_TABLE
            .iter()
            .map(|(from, event, _)| format!("{from:?} {event:?}"))
            .collect();
        assert_eq!(pairs.iter().collect::<BTreeSet<_>>().len(), pairs.len());
    }
}
