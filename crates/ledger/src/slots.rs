//! The generic machine: one table of slots, each with a device, its mounts and its holders.
//!
//! A holder is on its way in until [`Machine::release`] turns it round. Each call of [`Machine::next`] moves its
//! device and mount as far as they go without I/O and returns what has to be performed, or that somebody else is
//! performing it. The way out is taken by the last holder; the others just leave.

use std::collections::BTreeMap;

use crate::{
    device::{At, Device},
    error::LeaseError,
    free::FreeSlots,
    ledger::{Lease, Next, Step, StepFailure, StepToken},
    slot::{Holder, Mount, Part, Progress, Slot},
    state::{DeviceEvent, DeviceState, MountState},
    view::{MountView, SlotView, Usage},
};

/// A table of slots, whatever its devices are.
pub(crate) trait Machine {
    fn next(&mut self, lease: Lease) -> Next;
    /// `keep_file`: a file that the holder manages is not deleted on its behalf.
    fn release(&mut self, lease: Lease, keep_file: bool) -> Result<(), LeaseError>;
    fn outcome(&mut self, token: &StepToken, result: Result<(), StepFailure>) -> Result<(), LeaseError>;
    fn guest_path(&self, lease: Lease) -> Option<&str>;
    fn usage(&self) -> Usage;
    fn view(&self) -> Vec<SlotView>;
}

/// Why a need got no slot.
pub(crate) enum NoSlot {
    Full,
    Conflict(String),
}

/// What [`Slots::undo`] needs to make a reservation not have been.
pub(crate) struct Reserved<D> {
    pub(crate) lease: Lease,
    before: Option<D>,
}

impl<D> Reserved<D> {
    pub(crate) fn is_new(&self) -> bool {
        self.before.is_none()
    }
}

/// A table of slots.
#[derive(Debug)]
pub(crate) struct Slots<D: Device> {
    slots: BTreeMap<usize, Slot<D>>,
    by_key: BTreeMap<D::Key, usize>,
    free: FreeSlots,
    /// Counts every occupation of a slot, so that no generation and no place by serial ever repeats.
    generation: u64,
    next_holder: u64,
    next_serial: u64,
    next_step: u64,
}

impl<D: Device> Slots<D> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            slots: BTreeMap::new(),
            by_key: BTreeMap::new(),
            free: FreeSlots::new(capacity),
            generation: 0,
            next_holder: 0,
            next_serial: 1,
            next_step: 0,
        }
    }

    pub(crate) fn holds(&self, key: &D::Key) -> bool {
        self.by_key.contains_key(key)
    }

    pub(crate) fn device_mut(&mut self, lease: Lease) -> Option<&mut D> {
        self.current(lease).map(|slot| &mut slot.device)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.free.used() < self.free.capacity()
    }

    /// Takes a slot for a device, or a further hold on the slot that has it. `at` gets the slot's index, since some
    /// guest paths are named after it.
    pub(crate) fn reserve(&mut self, device: D, at: impl FnOnce(usize) -> At) -> Result<Reserved<D>, NoSlot> {
        let key = device.key();
        let manages_file = device.delete().is_some();
        let (index, before) = match self.by_key.get(&key) {
            Some(&index) => (index, Some(self.join(index, &device)?)),
            None => (self.occupy(key, device)?, None),
        };
        let holder = self.next_holder;
        self.next_holder += 1;
        let slot = self.slots.get_mut(&index).ok_or(NoSlot::Full)?;
        let at = at(index);
        let guest_path = at.guest_path.clone();
        let fresh = Mount {
            at,
            state: MountState::Wanted,
            holders: 0,
            step: None,
            failure: None,
        };
        let mount = slot.mounts.entry(guest_path.clone()).or_insert(fresh);
        mount.holders += 1;
        slot.holders.insert(
            holder,
            Holder {
                guest_path,
                releasing: false,
                holds_mount: true,
                manages_file,
                tried_detach: false,
            },
        );
        let lease = Lease {
            table: D::TABLE,
            slot: index,
            generation: slot.generation,
            holder,
        };
        Ok(Reserved { lease, before })
    }

    fn join(&mut self, index: usize, device: &D) -> Result<D, NoSlot> {
        let slot = self.slots.get_mut(&index).ok_or(NoSlot::Full)?;
        let before = slot.device.clone();
        // In these states it will be attached anew, under the rights it has by then.
        let fixed = !matches!(slot.state, DeviceState::Reserved | DeviceState::Detached);
        slot.device.join(device, fixed).map_err(NoSlot::Conflict)?;
        Ok(before)
    }

    fn occupy(&mut self, key: D::Key, device: D) -> Result<usize, NoSlot> {
        let index = self.free.take().ok_or(NoSlot::Full)?;
        self.generation += 1;
        let place = self.new_place(index);
        let slot = Slot {
            generation: self.generation,
            state: DeviceState::Reserved,
            device,
            place,
            step: None,
            failure: None,
            delete_due: false,
            mounts: BTreeMap::new(),
            holders: BTreeMap::new(),
        };
        self.slots.insert(index, slot);
        self.by_key.insert(key, index);
        Ok(index)
    }

    fn new_place(&mut self, index: usize) -> D::Place {
        let serial = self.next_serial;
        self.next_serial += 1;
        D::place(index, serial)
    }

    /// Makes a reservation not have been. Nothing has been asked for it yet.
    pub(crate) fn undo(&mut self, reserved: Reserved<D>) {
        let lease = reserved.lease;
        if let Some(slot) = self.slots.get_mut(&lease.slot) {
            if let Some(before) = reserved.before {
                slot.device = before;
            }
            if let Some(holder) = slot.holders.get_mut(&lease.holder) {
                holder.releasing = true;
            }
        }
        // Its mount is wanted only, and either the device is reserved only or others hold it: no step arises.
        let _ = self.next(lease);
    }

    fn current(&mut self, lease: Lease) -> Option<&mut Slot<D>> {
        self.slots
            .get_mut(&lease.slot)
            .filter(|slot| slot.generation == lease.generation && slot.holders.contains_key(&lease.holder))
    }

    fn vacate(&mut self, index: usize) {
        if let Some(slot) = self.slots.remove(&index) {
            self.by_key.remove(&slot.device.key());
            self.free.give_back(index);
        }
    }
}

impl<D: Device> Machine for Slots<D> {
    fn next(&mut self, lease: Lease) -> Next {
        loop {
            let Some(slot) = self.current(lease) else {
                return Next::Gone;
            };
            let Some(holder) = slot.holders.get(&lease.holder) else {
                return Next::Gone;
            };
            let (guest_path, releasing) = (holder.guest_path.clone(), holder.releasing);
            let progress = if releasing {
                slot.release(lease.holder, &guest_path)
            } else {
                slot.acquire(lease.holder, &guest_path)
            };
            return match progress {
                Progress::Perform(part, request) => {
                    let serial = self.next_step;
                    self.next_step += 1;
                    if let Some(slot) = self.current(lease) {
                        slot.performs(&part, serial);
                    }
                    let token = StepToken {
                        table: D::TABLE,
                        slot: lease.slot,
                        generation: lease.generation,
                        part,
                        serial,
                    };
                    Next::Perform(Step { token, request })
                }
                Progress::Wait => Next::Wait,
                Progress::Ready => Next::Ready,
                Progress::Failed(failure) => Next::Failed(failure),
                Progress::Left => Next::Gone,
                Progress::Vacant => {
                    self.vacate(lease.slot);
                    Next::Gone
                }
                Progress::Renew => {
                    let place = self.new_place(lease.slot);
                    let Some(slot) = self.current(lease) else {
                        return Next::Gone;
                    };
                    slot.step(DeviceEvent::Renew);
                    slot.place = place;
                    continue;
                }
            };
        }
    }

    fn release(&mut self, lease: Lease, keep_file: bool) -> Result<(), LeaseError> {
        let slot = self.current(lease).ok_or(LeaseError::Stale)?;
        let holder = slot.holders.get_mut(&lease.holder).ok_or(LeaseError::Stale)?;
        holder.releasing = true;
        slot.delete_due |= holder.manages_file && !keep_file;
        Ok(())
    }

    fn outcome(&mut self, token: &StepToken, result: Result<(), StepFailure>) -> Result<(), LeaseError> {
        let slot = self
            .slots
            .get_mut(&token.slot)
            .filter(|slot| slot.generation == token.generation);
        let slot = slot.ok_or(LeaseError::Stale)?;
        match &token.part {
            Part::Device => slot.device_outcome(token.serial, result),
            Part::Mount(guest_path) => slot.mount_outcome(guest_path, token.serial, result),
        }
    }

    fn guest_path(&self, lease: Lease) -> Option<&str> {
        let slot = self
            .slots
            .get(&lease.slot)
            .filter(|slot| slot.generation == lease.generation)?;
        slot.holders
            .get(&lease.holder)
            .map(|holder| holder.guest_path.as_str())
    }

    fn usage(&self) -> Usage {
        Usage {
            used: self.free.used(),
            total: self.free.capacity(),
        }
    }

    fn view(&self) -> Vec<SlotView> {
        let mounts = |slot: &Slot<D>| {
            let one = |mount: &Mount| MountView {
                guest_path: mount.at.guest_path.clone(),
                read_only: mount.at.read_only,
                state: mount.state,
                holders: mount.holders,
            };
            slot.mounts.values().map(one).collect()
        };
        self.slots
            .iter()
            .map(|(index, slot)| SlotView {
                table: D::TABLE,
                slot: *index,
                generation: slot.generation,
                state: slot.state,
                attach: slot.device.attach(slot.place),
                holders: slot.holders.len(),
                mounts: mounts(slot),
            })
            .collect()
    }
}
