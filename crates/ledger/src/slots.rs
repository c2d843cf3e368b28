//! The generic machine: one table of slots, each with a device, its mounts and its holders.
//!
//! A holder is on its way in until [`Machine::release`] turns it round. Each call of [`Machine::next`] moves its
//! device and mount as far as they go without I/O and returns what has to be performed, or that somebody else is
//! performing it. The way out is taken by the last holder; the others just leave.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Request,
    device::{At, Device},
    error::LeaseError,
    free::FreeSlots,
    ledger::{Lease, Next, Step, StepFailure, StepToken},
    state::{DeviceEvent, DeviceState, MountState},
    view::{MountView, SlotView, Usage},
};

/// A table of slots, whatever its devices are.
pub(crate) trait Machine {
    fn next(&mut self, lease: Lease) -> Next;
    fn release(&mut self, lease: Lease) -> Result<(), LeaseError>;
    fn outcome(&mut self, token: &StepToken, result: Result<(), StepFailure>) -> Result<(), LeaseError>;
    fn guest_path(&self, lease: Lease) -> Option<&str>;
    fn usage(&self) -> Usage;
    fn view(&self) -> Vec<SlotView>;
}

/// What a step concerns.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Part {
    /// The device.
    Device,
    /// Its mount at this guest path.
    Mount(String),
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
}

#[derive(Debug)]
struct Slot<D: Device> {
    generation: u64,
    state: DeviceState,
    device: D,
    place: D::Place,
    failure: Option<StepFailure>,
    mounts: BTreeMap<String, Mount>,
    holders: BTreeMap<u64, Holder>,
}

#[derive(Debug)]
struct Mount {
    at: At,
    state: MountState,
    holders: usize,
    failure: Option<StepFailure>,
}

#[derive(Debug)]
struct Holder {
    guest_path: String,
    releasing: bool,
    holds_mount: bool,
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
        }
    }

    pub(crate) fn holds(&self, key: &D::Key) -> bool {
        self.by_key.contains_key(key)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.free.used() < self.free.capacity()
    }

    /// Takes a slot for a device, or a further hold on the slot that has it. `at` gets the slot's index, since some
    /// guest paths are named after it.
    pub(crate) fn reserve(&mut self, device: D, at: impl FnOnce(usize) -> At) -> Result<Reserved<D>, NoSlot> {
        let key = device.key();
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
            failure: None,
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

/// How far a slot has come for one holder.
enum Progress {
    Perform(Part, Request),
    Wait,
    Ready,
    Failed(StepFailure),
    /// The holder has left; others remain.
    Left,
    /// The holder has left, and the slot is nobody's.
    Vacant,
    /// The device is out, and the holder wants it in again.
    Renew,
}

impl<D: Device> Slot<D> {
    /// A transition the table has; the callers ask only for those.
    fn step(&mut self, event: DeviceEvent) {
        let next = self.state.after(event);
        debug_assert!(next.is_some(), "no transition from {:?} on {event:?}", self.state);
        self.state = next.unwrap_or(self.state);
    }

    fn begin(&mut self, request: Option<Request>) -> Option<Progress> {
        self.step(DeviceEvent::Begin);
        match request {
            Some(request) => Some(Progress::Perform(Part::Device, request)),
            None => {
                self.step(DeviceEvent::Done);
                None
            }
        }
    }

    fn acquire(&mut self, guest_path: &str) -> Progress {
        loop {
            let begun = match self.state {
                DeviceState::Attached => return self.acquire_mount(guest_path),
                DeviceState::Reserved => self.begin(self.device.attach(self.place).map(Request::Host)),
                // Somebody else's way out stopped here, and this holder wants the device in again.
                DeviceState::Ejected => self.begin(self.device.detach(self.place).map(Request::Host)),
                DeviceState::Broken => return Progress::Failed(known(self.failure.as_ref())),
                DeviceState::Detached | DeviceState::Free => return Progress::Renew,
                _busy => return Progress::Wait,
            };
            if let Some(progress) = begun {
                return progress;
            }
        }
    }

    fn acquire_mount(&mut self, guest_path: &str) -> Progress {
        let Some(mount) = self.mounts.get_mut(guest_path) else {
            return Progress::Wait;
        };
        match mount.state {
            MountState::Mounted => Progress::Ready,
            MountState::Failed => Progress::Failed(known(mount.failure.as_ref())),
            MountState::Wanted | MountState::Gone => {
                mount.state = MountState::Mounting;
                let request = self.device.mount(self.place, &mount.at);
                Progress::Perform(Part::Mount(guest_path.to_owned()), Request::Guest(request))
            }
            MountState::Mounting | MountState::Unmounting => Progress::Wait,
        }
    }

    fn release(&mut self, holder: u64, guest_path: &str) -> Progress {
        if self.holders.get(&holder).is_some_and(|holder| holder.holds_mount) {
            if let Some(progress) = self.release_mount(guest_path) {
                return progress;
            }
            if let Some(holder) = self.holders.get_mut(&holder) {
                holder.holds_mount = false;
            }
        }
        if self.holders.len() > 1 {
            self.holders.remove(&holder);
            return Progress::Left;
        }
        self.release_device()
    }

    /// `None` once the holder no longer holds its mount.
    fn release_mount(&mut self, guest_path: &str) -> Option<Progress> {
        let mount = self.mounts.get_mut(guest_path)?;
        if mount.holders > 1 {
            mount.holders -= 1;
            return None;
        }
        match mount.state {
            MountState::Wanted | MountState::Gone => {
                self.mounts.remove(guest_path);
                None
            }
            MountState::Mounted | MountState::Failed => {
                mount.state = MountState::Unmounting;
                let request = self.device.unmount(self.place, &mount.at);
                Some(Progress::Perform(
                    Part::Mount(guest_path.to_owned()),
                    Request::Guest(request),
                ))
            }
            MountState::Mounting | MountState::Unmounting => Some(Progress::Wait),
        }
    }

    fn release_device(&mut self) -> Progress {
        loop {
            let begun = match self.state {
                DeviceState::Reserved => return Progress::Vacant,
                DeviceState::Attached => self.begin(self.device.eject(self.place).map(Request::Guest)),
                DeviceState::Ejected | DeviceState::Broken => {
                    self.begin(self.device.detach(self.place).map(Request::Host))
                }
                DeviceState::Detached => match self.device.delete() {
                    Some(request) => self.begin(Some(Request::Host(request))),
                    None => return Progress::Vacant,
                },
                DeviceState::Free => return Progress::Vacant,
                _busy => return Progress::Wait,
            };
            if let Some(progress) = begun {
                return progress;
            }
        }
    }

    fn device_outcome(&mut self, result: Result<(), StepFailure>) -> Result<(), LeaseError> {
        if !self.state.is_busy() {
            return Err(LeaseError::NoSuchStep);
        }
        let deleted = self.state == DeviceState::Deleting && result.is_ok();
        self.step(if result.is_ok() {
            DeviceEvent::Done
        } else {
            DeviceEvent::Failed
        });
        self.failure = result.err();
        if deleted {
            self.device.forget_file();
        }
        Ok(())
    }

    fn mount_outcome(&mut self, guest_path: &str, result: Result<(), StepFailure>) -> Result<(), LeaseError> {
        let mount = self
            .mounts
            .get_mut(guest_path)
            .filter(|mount| mount.state.is_busy());
        let mount = mount.ok_or(LeaseError::NoSuchStep)?;
        let event = if result.is_ok() {
            DeviceEvent::Done
        } else {
            DeviceEvent::Failed
        };
        mount.state = mount.state.after(event).unwrap_or(mount.state);
        mount.failure = result.err();
        Ok(())
    }
}

/// A failure that was recorded with the state that tells of it.
fn known(failure: Option<&StepFailure>) -> StepFailure {
    failure
        .cloned()
        .unwrap_or_else(|| Arc::new(LeaseError::NoSuchStep))
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
                slot.acquire(&guest_path)
            };
            return match progress {
                Progress::Perform(part, request) => {
                    let token = StepToken {
                        table: D::TABLE,
                        slot: lease.slot,
                        generation: lease.generation,
                        part,
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

    fn release(&mut self, lease: Lease) -> Result<(), LeaseError> {
        let slot = self.current(lease).ok_or(LeaseError::Stale)?;
        let holder = slot.holders.get_mut(&lease.holder).ok_or(LeaseError::Stale)?;
        holder.releasing = true;
        Ok(())
    }

    fn outcome(&mut self, token: &StepToken, result: Result<(), StepFailure>) -> Result<(), LeaseError> {
        let slot = self
            .slots
            .get_mut(&token.slot)
            .filter(|slot| slot.generation == token.generation);
        let slot = slot.ok_or(LeaseError::Stale)?;
        match &token.part {
            Part::Device => slot.device_outcome(result),
            Part::Mount(guest_path) => slot.mount_outcome(guest_path, result),
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
