//! Slots of the ledger with the names of those who hold them. Pure.

use cofferdam_container::{Held, Subject};
use cofferdam_ledger::{Lease, SlotView, Table, request::HostRequest};
use cofferdam_protocol::message::GuestMount;

use crate::document::{Device, Holder, MountDocument};

/// What the guest calls devices whose blocks are checked: the only ones it makes with the device mapper.
const CHECKED: &str = "/dev/dm-";

/// A lease that is held, of a container.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) lease: Lease,
    pub(crate) holder: Holder,
}

/// The leases of a container that are held still: `guest_path` says where each is mounted, or that it has been given back.
pub(crate) fn holds(
    container: &str,
    held: &[Held],
    guest_path: impl Fn(Lease) -> Option<String>,
) -> Vec<Hold> {
    let is_layer = |held: &Held| matches!(held.subject, Subject::Layer(_));
    // Topmost first, and the lowest is number 1.
    let mut above = held.iter().filter(|held| is_layer(held)).count() + 1;
    let mut holds = Vec::new();
    for held in held {
        above -= usize::from(is_layer(held));
        let Some(guest_path) = guest_path(held.lease) else {
            continue;
        };
        let holder = Holder {
            container: container.to_owned(),
            item: item(held, above),
            mount_index: held.subject.mount_index(),
            destination: held.destination.clone(),
            added: held.added,
            guest_path,
        };
        holds.push(Hold {
            lease: held.lease,
            holder,
        });
    }
    holds
}

fn item(held: &Held, layer: usize) -> String {
    if let Some(index) = held.subject.mount_index() {
        return match &held.destination {
            Some(destination) => format!("mount {index} on {destination}"),
            None => format!("mount {index}"),
        };
    }
    match held.subject {
        Subject::Layer(_) => format!("layer {layer}"),
        Subject::Scratch(_) => "scratch".to_owned(),
        Subject::CombinedLayers | Subject::Share { .. } => "root".to_owned(),
        _ => "file".to_owned(),
    }
}

/// One slot. `guest` are the mounts the guest tells of, where it can.
pub(crate) fn device(slot: SlotView, holds: &[Hold], guest: Option<&[GuestMount]>) -> Device {
    let mut held_by: Vec<_> = holds
        .iter()
        .filter(|hold| (hold.lease.table(), hold.lease.slot()) == (slot.table, slot.slot))
        .map(|hold| hold.holder.clone())
        .collect();
    held_by.sort();
    let is_disk = matches!(slot.table, Table::Scsi | Table::Vpmem);
    let verity = guest.filter(|_| is_disk).map(|guest| {
        let checked = |mount: &GuestMount| mount.source.starts_with(CHECKED);
        let own = |mount: &GuestMount| slot.mounts.iter().any(|own| own.guest_path == mount.path);
        guest.iter().any(|mount| own(mount) && checked(mount))
    });
    let mounts = slot.mounts.into_iter().map(|mount| MountDocument {
        guest_path: mount.guest_path,
        read_only: mount.read_only,
        state: word(mount.state),
        references: mount.holders,
    });
    let mut device = Device {
        device: match slot.table {
            Table::Overlays => format!("overlay {}", slot.slot),
            _ => format!("container mount {}", slot.slot),
        },
        table: slot.table,
        host_path: None,
        allowed_names: None,
        disk: None,
        read_only: None,
        verity,
        state: word(slot.state),
        references: slot.holders,
        mounts: mounts.collect(),
        held_by,
    };
    device.attached_by(slot.attach);
    device
}

impl Device {
    fn attached_by(&mut self, attach: Option<HostRequest>) {
        let host_path = match attach {
            Some(HostRequest::AttachScsi {
                address,
                path,
                kind,
                read_only,
            }) => {
                self.device = address.to_string();
                self.disk = Some(kind);
                self.read_only = Some(read_only);
                path
            }
            Some(HostRequest::AttachVpmem { index, path }) => {
                self.device = format!("VPMEM {index}");
                self.read_only = Some(true);
                path
            }
            Some(HostRequest::AddShare {
                share,
                path,
                read_only,
                allowed_names,
            }) => {
                self.device = format!("share {share}");
                self.read_only = Some(read_only);
                self.allowed_names = allowed_names;
                path
            }
            _ => return,
        };
        self.host_path = Some(host_path.to_string_lossy().into_owned());
    }
}

/// A state's name as a word of the document.
fn word(state: impl std::fmt::Debug) -> String {
    format!("{state:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use cofferdam_ledger::{
        Ledger, Want,
        address::Limits,
        device::{FileKey, LayerNeed},
    };

    use super::*;

    fn layer(inode: u64) -> Want {
        Want::Layer(LayerNeed {
            path: format!("/layers/{inode}").into(),
            key: FileKey { device: 1, inode },
            bytes: 1,
        })
    }

    fn held(leases: &[Lease]) -> Vec<Held> {
        let one = |lease: &Lease| Held {
            lease: *lease,
            subject: Subject::Layer("/layers".into()),
            destination: None,
            added: false,
        };
        leases.iter().map(one).collect()
    }

    #[test]
    fn a_layer_of_two_containers_names_both_and_only_those_who_hold_it_still() {
        let mut ledger = Ledger::new(Limits::default());
        let web = ledger.reserve(vec![layer(7), layer(8)]).unwrap();
        let db = ledger.reserve(vec![layer(9), layer(5), layer(8)]).unwrap();
        let names = |ledger: &Ledger| {
            let of = |name: &str, leases: &[Lease]| {
                holds(name, &held(leases), |lease| {
                    ledger.guest_path(lease).map(str::to_owned)
                })
            };
            let all = [of("web", &web), of("db", &db)].concat();
            let devices = ledger
                .view()
                .slots
                .into_iter()
                .map(|slot| device(slot, &all, None));
            let named = |device: Device| {
                assert_eq!(device.references, device.held_by.len());
                let items = device
                    .held_by
                    .into_iter()
                    .map(|held| format!("{} {}", held.container, held.item));
                (
                    device.device,
                    device.host_path.unwrap(),
                    items.collect::<Vec<_>>(),
                )
            };
            devices.map(named).collect::<Vec<_>>()
        };
        let line = |device: &str, path: &str, holders: &[&str]| {
            let holders = holders
                .iter()
                .map(|&holder| holder.to_owned())
                .collect::<Vec<_>>();
            (device.to_owned(), path.to_owned(), holders)
        };
        assert_eq!(
            names(&ledger),
            [
                line("VPMEM 0", "/layers/7", &["web layer 2"]),
                line("VPMEM 1", "/layers/8", &["db layer 1", "web layer 1"]),
                line("VPMEM 2", "/layers/9", &["db layer 3"]),
                line("VPMEM 3", "/layers/5", &["db layer 2"]),
            ]
        );
        // Nothing was attached, so a release needs no step.
        for lease in &web {
            ledger.release(*lease).unwrap();
            assert!(matches!(ledger.next(*lease), cofferdam_ledger::Next::Gone));
        }
        assert_eq!(names(&ledger)[0], line("VPMEM 1", "/layers/8", &["db layer 1"]));
    }

    #[test]
    fn a_disk_is_checked_where_the_guest_mounts_it_through_the_device_mapper() {
        let mut ledger = Ledger::new(Limits::default());
        let leases = ledger.reserve(vec![layer(1), layer(2)]).unwrap();
        let guest: Vec<_> = leases
            .iter()
            .zip(["/dev/dm-0", "/dev/pmem1"])
            .map(|(lease, source)| GuestMount {
                path: ledger.guest_path(*lease).unwrap().to_owned(),
                source: source.to_owned(),
                fs_type: "ext4".to_owned(),
                read_only: true,
            })
            .collect();
        let slots = ledger.view().slots;
        let verity = |guest: Option<&[GuestMount]>| {
            let devices = slots.iter().cloned().map(|slot| device(slot, &[], guest));
            devices.map(|device| device.verity).collect::<Vec<_>>()
        };
        assert_eq!(verity(Some(&guest)), [Some(true), Some(false)]);
        assert_eq!(verity(None), [None, None]);
    }
}
