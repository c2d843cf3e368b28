//! One slot: a device, its mounts, its holders, and how far it goes for one of them.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Request,
    device::{At, Device},
    error::LeaseError,
    ledger::StepFailure,
    state::{DeviceEvent, DeviceState, MountState},
};

/// What a step concerns.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Part {
    /// The device.
    Device,
    /// Its mount at this guest path.
    Mount(String),
}

#[derive(Debug)]
pub(crate) struct Slot<D: Device> {
    pub(crate) generation: u64,
    pub(crate) state: DeviceState,
    pub(crate) device: D,
    pub(crate) place: D::Place,
    /// The step being performed.
    pub(crate) step: Option<u64>,
    pub(crate) failure: Option<StepFailure>,
    /// A holder who manages the file has released it.
    pub(crate) delete_due: bool,
    pub(crate) mounts: BTreeMap<String, Mount>,
    pub(crate) holders: BTreeMap<u64, Holder>,
}

#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) at: At,
    pub(crate) state: MountState,
    pub(crate) holders: usize,
    /// The step being performed.
    pub(crate) step: Option<u64>,
    pub(crate) failure: Option<StepFailure>,
}

#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) guest_path: String,
    pub(crate) releasing: bool,
    pub(crate) holds_mount: bool,
    /// Its release deletes the file.
    pub(crate) manages_file: bool,
    /// On its way in it has tried once to pull out what another's way out had left.
    pub(crate) tried_detach: bool,
}

/// How far a slot has come for one holder.
pub(crate) enum Progress {
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
    pub(crate) fn step(&mut self, event: DeviceEvent) {
        let next = self.state.after(event);
        debug_assert!(next.is_some(), "no transition from {:?} on {event:?}", self.state);
        self.state = next.unwrap_or(self.state);
    }

    pub(crate) fn begin(&mut self, request: Option<Request>) -> Option<Progress> {
        self.step(DeviceEvent::Begin);
        match request {
            Some(request) => Some(Progress::Perform(Part::Device, request)),
            None => {
                self.step(DeviceEvent::Done);
                None
            }
        }
    }

    pub(crate) fn acquire(&mut self, holder: u64, guest_path: &str) -> Progress {
        loop {
            let begun = match self.state {
                DeviceState::Attached => return self.acquire_mount(guest_path),
                DeviceState::Reserved => self.begin(self.device.attach(self.place).map(Request::Host)),
                // Somebody else's way out stopped here, and this holder wants the device in again. It tries once: a
                // host that cannot pull the device out would keep it trying for ever.
                DeviceState::Ejected => match self.holders.get_mut(&holder) {
                    Some(holder) if !holder.tried_detach => {
                        holder.tried_detach = true;
                        self.begin(self.device.detach(self.place).map(Request::Host))
                    }
                    _tried => return Progress::Failed(known(self.failure.as_ref())),
                },
                DeviceState::Broken => return Progress::Failed(known(self.failure.as_ref())),
                DeviceState::Detached | DeviceState::Free => return Progress::Renew,
                _busy => return Progress::Wait,
            };
            if let Some(progress) = begun {
                return progress;
            }
        }
    }

    pub(crate) fn acquire_mount(&mut self, guest_path: &str) -> Progress {
        let Some(mount) = self.mounts.get_mut(guest_path) else {
            return Progress::Wait;
        };
        match mount.state {
            MountState::Mounted => Progress::Ready,
            MountState::Failed => Progress::Failed(known(mount.failure.as_ref())),
            MountState::Wanted | MountState::Gone => {
                mount.state = mount.state.after(DeviceEvent::Begin).unwrap_or(mount.state);
                let request = self.device.mount(self.place, &mount.at);
                Progress::Perform(Part::Mount(guest_path.to_owned()), Request::Guest(request))
            }
            MountState::Mounting | MountState::Unmounting => Progress::Wait,
        }
    }

    pub(crate) fn release(&mut self, holder: u64, guest_path: &str) -> Progress {
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
    pub(crate) fn release_mount(&mut self, guest_path: &str) -> Option<Progress> {
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
                mount.state = mount.state.after(DeviceEvent::Begin).unwrap_or(mount.state);
                let request = self.device.unmount(self.place, &mount.at);
                Some(Progress::Perform(
                    Part::Mount(guest_path.to_owned()),
                    Request::Guest(request),
                ))
            }
            MountState::Mounting | MountState::Unmounting => Some(Progress::Wait),
        }
    }

    pub(crate) fn release_device(&mut self) -> Progress {
        loop {
            let begun = match self.state {
                DeviceState::Reserved => return Progress::Vacant,
                DeviceState::Attached => self.begin(self.device.eject(self.place).map(Request::Guest)),
                DeviceState::Ejected | DeviceState::Broken => {
                    self.begin(self.device.detach(self.place).map(Request::Host))
                }
                DeviceState::Detached => match self.device.delete().filter(|_| self.delete_due) {
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

    pub(crate) fn performs(&mut self, part: &Part, serial: u64) {
        match part {
            Part::Device => self.step = Some(serial),
            Part::Mount(guest_path) => {
                if let Some(mount) = self.mounts.get_mut(guest_path) {
                    mount.step = Some(serial);
                }
            }
        }
    }

    pub(crate) fn device_outcome(
        &mut self,
        serial: u64,
        result: Result<(), StepFailure>,
    ) -> Result<(), LeaseError> {
        if self.step != Some(serial) {
            return Err(LeaseError::NoSuchStep);
        }
        self.step = None;
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

    pub(crate) fn mount_outcome(
        &mut self,
        guest_path: &str,
        serial: u64,
        result: Result<(), StepFailure>,
    ) -> Result<(), LeaseError> {
        let mount = self
            .mounts
            .get_mut(guest_path)
            .filter(|mount| mount.step == Some(serial));
        let mount = mount.ok_or(LeaseError::NoSuchStep)?;
        mount.step = None;
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
