//! The vhost-user device: what the hypervisor asks, and the events of the thread that serves the queues (virtio 1.2
//! §5.10).

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::VhostUserBackend;
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier},
};

use crate::{
    muxer::Muxer,
    rings::{Event, Memory, RX, Rings, TX, Vring},
};

/// Receive, transmit, event (virtio 1.2 §5.10.2). The device has nothing to say on the event queue.
const QUEUES: usize = 3;
const QUEUE_SIZE: usize = 1024;
/// The muxer's sockets; above the queues and the exit event.
pub(crate) const SOCKETS: u16 = QUEUES as u16 + 1;
/// Work that was left for lack of budget.
pub(crate) const AGAIN: u16 = QUEUES as u16 + 2;

/// `VIRTIO_F_VERSION_1`.
const F_VERSION_1: u64 = 1 << 32;
/// `VIRTIO_RING_F_EVENT_IDX`.
const F_EVENT_IDX: u64 = 1 << 29;
/// `VHOST_USER_F_PROTOCOL_FEATURES`.
const F_PROTOCOL_FEATURES: u64 = 1 << 30;

pub(crate) struct Device {
    guest_cid: u64,
    rings: Mutex<Rings>,
    again: (EventConsumer, EventNotifier),
    exit: Mutex<Option<(EventConsumer, EventNotifier)>>,
}

impl Device {
    pub(crate) fn new(guest_cid: u64, muxer: Muxer) -> io::Result<Self> {
        let flags = EventFlag::NONBLOCK | EventFlag::CLOEXEC;
        Ok(Self {
            guest_cid,
            rings: Mutex::new(Rings::new(muxer)),
            again: new_event_consumer_and_notifier(flags)?,
            exit: Mutex::new(Some(new_event_consumer_and_notifier(flags)?)),
        })
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readable when [`SOCKETS`] is due, and when [`AGAIN`] is.
    pub(crate) fn poll_fds(&self) -> (i32, i32) {
        use std::os::fd::AsRawFd;

        (self.rings().muxer.poll_fd(), self.again.0.as_raw_fd())
    }

    /// The hypervisor has gone: lets go of the guest's memory and ends every stream.
    pub(crate) fn end(&self) {
        let mut rings = self.rings();
        rings.set_memory(None);
        rings.muxer.reset();
    }

    /// After [`Device::end`]: returns when the host's readers have taken all that the guest sent, or have gone.
    pub(crate) fn linger(&self) -> io::Result<()> {
        let sockets = Epoll::new()?;
        let (poll_fd, _) = self.poll_fds();
        sockets.ctl(ControlOperation::Add, poll_fd, EpollEvent::new(EventSet::IN, 0))?;
        loop {
            let mut rings = self.rings();
            rings.muxer.poll();
            if rings.muxer.lingering() == 0 {
                return Ok(());
            }
            drop(rings);
            match sockets.wait(-1, &mut [EpollEvent::default()]) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        F_VERSION_1 | F_EVENT_IDX | F_PROTOCOL_FEATURES
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
    }

    fn reset_device(&self) {
        self.rings().muxer.reset();
    }

    fn set_event_idx(&self, enabled: bool) {
        self.rings().set_event_idx(enabled);
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = self.guest_cid.to_le_bytes();
        let from = (offset as usize).min(config.len());
        let to = from.saturating_add(size as usize).min(config.len());
        config[from..to].to_vec()
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        self.rings().set_memory(Some(memory));
        Ok(())
    }

    /// Called before the queue's position is told to the hypervisor; taking the lock waits until it is not being used.
    fn stop_vring(&self, _index: u32) -> io::Result<()> {
        self.rings().stopped();
        Ok(())
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Never fails: an error would end the thread, and with it the device.
    fn handle_event(&self, event: u16, _set: EventSet, vrings: &[Vring], _thread: usize) -> io::Result<()> {
        let event = match event {
            RX => Event::Room,
            TX => Event::Packets,
            AGAIN => {
                // Level-triggered: left unread, it would come again and again.
                let _ = self.again.0.consume();
                Event::Packets
            }
            SOCKETS => Event::Sockets,
            _ => return Ok(()),
        };
        if self.rings().turn(event, vrings) {
            // It fails only when it is due already.
            let _ = self.again.1.notify();
        }
        Ok(())
    }
}
