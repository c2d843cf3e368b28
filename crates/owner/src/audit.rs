//! What a living owner has, compared on its three sides: the ledger, the host's devices, the guest's mounts. Pure.
//!
//! What is on its way in or out may be there or not; everything else must agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use cofferdam_backend::Devices;
use cofferdam_ledger::{
    LedgerView, SlotView, Table,
    address::ScsiAddress,
    request::{HostRequest, ShareId},
    state::{DeviceState, MountState},
};
use serde::Serialize;

/// Something that one of the sides has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Thing {
    /// A SCSI disk.
    Scsi(ScsiAddress),
    /// A persistent-memory device.
    Vpmem(u32),
    /// A share.
    Share(ShareId),
    /// An object of the hypervisor that belongs to no device.
    Object(String),
    /// A mount of the guest.
    Mount(String),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scsi(address) => address.fmt(f),
            Self::Vpmem(index) => write!(f, "VPMEM {index}"),
            Self::Share(share) => write!(f, "share {share}"),
            Self::Object(name) => write!(f, "object {name} of the hypervisor"),
            Self::Mount(path) => write!(f, "guest mount {path}"),
        }
    }
}

/// How the sides disagree on a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// It is there, and nobody holds it.
    NobodyHolds,
    /// Somebody holds it, and it is not there.
    NotThere,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NobodyHolds => "is there, and nobody holds it",
            Self::NotThere => "is held, and not there",
        })
    }
}

/// One disagreement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    /// On what.
    pub thing: Thing,
    /// In what way.
    pub problem: Problem,
}

/// Whether a thing has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    There,
    /// A step is under way, or failed: both are right.
    Either,
}

/// A mount of the guest, as the guest tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestMount {
    /// Where.
    pub path: String,
    /// The kind of its file system.
    pub fs_type: String,
}

/// Where the agent mounts each disk once; what containers see are binds of it.
const AGENT_DISKS: &str = "/run/cofferdam/disks/";

/// Every disagreement, in the order of [`Thing`].
#[must_use]
pub fn compare(ledger: &LedgerView, host: &Devices, guest: &[GuestMount]) -> Vec<Difference> {
    let expected = expectations(ledger);
    let there = present(host, guest);
    let missing = expected
        .iter()
        .filter(|(thing, expected)| **expected == Expected::There && !there.contains(thing));
    let missing = missing.map(|(thing, _)| Difference {
        thing: thing.clone(),
        problem: Problem::NotThere,
    });
    let orphans = there.iter().filter(|thing| !expected.contains_key(thing));
    let orphans = orphans.map(|thing| Difference {
        thing: thing.clone(),
        problem: Problem::NobodyHolds,
    });
    let mut differences: Vec<_> = missing.chain(orphans).collect();
    differences.sort();
    differences
}

fn present(host: &Devices, guest: &[GuestMount]) -> BTreeSet<Thing> {
    let mounts = guest.iter().map(|mount| Thing::Mount(mount.path.clone()));
    let mut there: BTreeSet<_> = mounts.collect();
    there.extend(host.scsi.iter().copied().map(Thing::Scsi));
    there.extend(host.vpmem.iter().copied().map(Thing::Vpmem));
    there.extend(host.shares.iter().copied().map(Thing::Share));
    there.extend(host.leftovers.iter().cloned().map(Thing::Object));
    there
}

fn expectations(ledger: &LedgerView) -> BTreeMap<Thing, Expected> {
    let mut expected = BTreeMap::new();
    for slot in &ledger.slots {
        let device = device_of(slot);
        if let (Some(device), Some(how)) = (device.clone(), of_device(slot.state)) {
            expected.insert(device, how);
        }
        // Those are in their container's own mount namespace, which the guest's table does not show.
        let in_the_vm = slot.table != Table::ContainerMounts;
        for mount in slot.mounts.iter().filter(|_| in_the_vm) {
            let Some(how) = of_mount(mount.state) else {
                continue;
            };
            expected.insert(Thing::Mount(mount.guest_path.clone()), how);
            // The agent mounts the disk itself with the first of its mounts, and lets go with the last.
            if let Some(Thing::Scsi(ScsiAddress { controller, lun })) = device {
                let own = format!("{AGENT_DISKS}{controller}-{lun}");
                expected.insert(Thing::Mount(own), Expected::Either);
            }
        }
    }
    expected
}

fn device_of(slot: &SlotView) -> Option<Thing> {
    match slot.attach.as_ref()? {
        HostRequest::AttachScsi { address, .. } => Some(Thing::Scsi(*address)),
        HostRequest::AttachVpmem { index, .. } => Some(Thing::Vpmem(*index)),
        HostRequest::AddShare { share, .. } => Some(Thing::Share(*share)),
        _ => None,
    }
}

/// `None` where it must not be there.
fn of_device(state: DeviceState) -> Option<Expected> {
    match state {
        DeviceState::Attached | DeviceState::Ejecting => Some(Expected::There),
        DeviceState::Attaching | DeviceState::Broken | DeviceState::Ejected | DeviceState::Detaching => {
            Some(Expected::Either)
        }
        DeviceState::Free | DeviceState::Reserved | DeviceState::Detached | DeviceState::Deleting => None,
    }
}

fn of_mount(state: MountState) -> Option<Expected> {
    match state {
        MountState::Mounted => Some(Expected::There),
        MountState::Mounting | MountState::Failed | MountState::Unmounting => Some(Expected::Either),
        MountState::Wanted | MountState::Gone => None,
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_ledger::{
        Ledger, Next, Want,
        address::Limits,
        device::{DiskNeed, FileKey},
        request::DiskKind,
    };

    use super::*;

    const ADDRESS: ScsiAddress = ScsiAddress {
        controller: 0,
        lun: 0,
    };

    fn mount(path: &str) -> GuestMount {
        GuestMount {
            path: path.to_owned(),
            fs_type: "ext4".to_owned(),
        }
    }

    fn difference(thing: Thing, problem: Problem) -> Difference {
        Difference { thing, problem }
    }

    #[test]
    fn the_sides_agree_after_every_step_of_a_disks_life() {
        let mut ledger = Ledger::new(Limits::default());
        let disk = DiskNeed {
            path: "/d".into(),
            key: FileKey { device: 1, inode: 2 },
            kind: DiskKind::Virtual,
            guest_path: "/m".into(),
            read_only: false,
            auto_manage: false,
        };
        let lease = ledger.reserve(vec![Want::Disk(disk)]).unwrap()[0];
        let (mut host, mut guest) = (Devices::default(), Vec::new());
        let agree = |ledger: &Ledger, host: &Devices, guest: &[GuestMount]| {
            assert_eq!(compare(&ledger.view(), host, guest), []);
        };
        for out in [false, true] {
            while let Next::Perform(step) = ledger.next(lease) {
                agree(&ledger, &host, &guest);
                match (out, &step.request) {
                    (false, cofferdam_ledger::Request::Host(_)) => drop(host.scsi.insert(ADDRESS)),
                    (false, _) => guest = vec![mount("/m"), mount("/run/cofferdam/disks/0-0")],
                    (true, cofferdam_ledger::Request::Host(_)) => drop(host.scsi.remove(&ADDRESS)),
                    (true, _) => guest.clear(),
                }
                agree(&ledger, &host, &guest);
                ledger.outcome(&step.token, Ok(())).unwrap();
                agree(&ledger, &host, &guest);
            }
            if !out {
                assert_eq!(
                    compare(&ledger.view(), &Devices::default(), &[]),
                    [
                        difference(Thing::Scsi(ADDRESS), Problem::NotThere),
                        difference(Thing::Mount("/m".into()), Problem::NotThere),
                    ]
                );
                ledger.release(lease).unwrap();
            }
        }
    }

    #[test]
    fn what_nobody_holds_is_named() {
        let ledger = Ledger::new(Limits::default());
        let host = Devices {
            scsi: [ADDRESS].into(),
            vpmem: [1].into(),
            shares: [ShareId(2)].into(),
            leftovers: ["file-0-3".to_owned()].into(),
        };
        let guest = [mount("/m"), mount("/run/cofferdam/disks/0-0")];
        let found = compare(&ledger.view(), &host, &guest);
        assert_eq!(found.len(), 6);
        assert!(found.iter().all(|found| found.problem == Problem::NobodyHolds));
    }
}
