//! The vhost-user device: the guest's queues on one side, the muxer on the other (virtio 1.2 §5.10).

use std::{
    io::{self, Read, Write},
    sync::{Mutex, PoisonError},
};

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VringRwLock, VringT};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::{
    epoll::EventSet,
    event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier},
};

use crate::{
    muxer::{Muxer, Packet},
    packet::{HEADER_BYTES, Header, MAX_PAYLOAD_BYTES},
};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Vring = VringRwLock<Memory>;

/// Receive, transmit, event (virtio 1.2 §5.10.2). The device has nothing to say on the event queue.
const QUEUES: usize = 3;
const QUEUE_SIZE: usize = 1024;
const RX: u16 = 0;
const TX: u16 = 1;
/// The muxer's sockets; above the queues and the exit event.
pub(crate) const SOCKETS: u16 = QUEUES as u16 + 1;

/// `VIRTIO_F_VERSION_1`.
const F_VERSION_1: u64 = 1 << 32;
/// `VIRTIO_RING_F_EVENT_IDX`.
const F_EVENT_IDX: u64 = 1 << 29;
/// `VHOST_USER_F_PROTOCOL_FEATURES`.
const F_PROTOCOL_FEATURES: u64 = 1 << 30;

pub(crate) struct Device {
    guest_cid: u64,
    state: Mutex<State>,
    exit: Mutex<Option<(EventConsumer, EventNotifier)>>,
}

struct State {
    muxer: Muxer,
    memory: Option<Memory>,
    event_idx: bool,
    scratch: Vec<u8>,
}

impl Device {
    pub(crate) fn new(guest_cid: u64, muxer: Muxer) -> io::Result<Self> {
        let exit = new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?;
        let scratch = vec![0; MAX_PAYLOAD_BYTES];
        let state = Mutex::new(State {
            muxer,
            memory: None,
            event_idx: false,
            scratch,
        });
        Ok(Self {
            guest_cid,
            state,
            exit: Mutex::new(Some(exit)),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn poll_fd(&self) -> i32 {
        self.state().muxer.poll_fd()
    }

    /// Ends every stream.
    pub(crate) fn reset_streams(&self) {
        self.state().muxer.reset();
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
        self.reset_streams();
    }

    fn set_event_idx(&self, enabled: bool) {
        self.state().event_idx = enabled;
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = self.guest_cid.to_le_bytes();
        let from = (offset as usize).min(config.len());
        let to = from.saturating_add(size as usize).min(config.len());
        config[from..to].to_vec()
    }

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        self.state().memory = Some(memory);
        Ok(())
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn handle_event(&self, event: u16, _set: EventSet, vrings: &[Vring], _thread: usize) -> io::Result<()> {
        let mut state = self.state();
        match event {
            TX => state.transmit(&vrings[usize::from(TX)])?,
            SOCKETS => state.muxer.poll(),
            _ => {}
        }
        state.receive(&vrings[usize::from(RX)])
    }
}

impl State {
    /// Takes every packet the guest has put in its transmit queue.
    fn transmit(&mut self, vring: &Vring) -> io::Result<()> {
        let Some(memory) = self.memory.clone() else {
            return Ok(());
        };
        loop {
            if self.event_idx {
                vring.disable_notification().map_err(io::Error::other)?;
            }
            let mut used_any = false;
            loop {
                let chain = vring
                    .get_mut()
                    .get_queue_mut()
                    .pop_descriptor_chain(memory.memory());
                let Some(chain) = chain else { break };
                let head = chain.head_index();
                let guard = memory.memory();
                match chain.reader(&guard) {
                    Ok(mut reader) => self.take(&mut reader),
                    Err(error) => tracing::warn!(%error, "a transmit descriptor that cannot be read"),
                }
                vring.add_used(head, 0).map_err(io::Error::other)?;
                used_any = true;
            }
            if used_any && vring.needs_notification().map_err(io::Error::other)? {
                vring.signal_used_queue()?;
            }
            if !self.event_idx || !vring.enable_notification().map_err(io::Error::other)? {
                return Ok(());
            }
        }
    }

    fn take(&mut self, reader: &mut impl Read) {
        let mut header = [0; HEADER_BYTES];
        if reader.read_exact(&mut header).is_err() {
            tracing::warn!("a transmit descriptor shorter than a header");
            return;
        }
        let header = Header::decode(&header);
        let length = header.len as usize;
        if length > MAX_PAYLOAD_BYTES || reader.read_exact(&mut self.scratch[..length]).is_err() {
            tracing::warn!(length, "a packet longer than its descriptors or the limit");
            return;
        }
        self.muxer.receive(&header, &self.scratch[..length]);
    }

    /// Fills the guest's receive queue while there are packets and descriptors.
    fn receive(&mut self, vring: &Vring) -> io::Result<()> {
        let Some(memory) = self.memory.clone() else {
            return Ok(());
        };
        loop {
            if self.event_idx {
                vring.disable_notification().map_err(io::Error::other)?;
            }
            let mut used_any = false;
            while self.muxer.has_packets() {
                let chain = vring
                    .get_mut()
                    .get_queue_mut()
                    .pop_descriptor_chain(memory.memory());
                let Some(chain) = chain else { break };
                let head = chain.head_index();
                let guard = memory.memory();
                let mut writer = match chain.writer(&guard) {
                    Ok(writer) if writer.available_bytes() > HEADER_BYTES => writer,
                    _ => {
                        tracing::warn!("a receive descriptor without room for a packet");
                        vring.add_used(head, 0).map_err(io::Error::other)?;
                        continue;
                    }
                };
                let room = writer.available_bytes() - HEADER_BYTES;
                let mut written = Ok(());
                let sent = self.muxer.send_next(room, |Packet { header, payload }| {
                    written = writer
                        .write_all(&header.encode())
                        .and_then(|()| writer.write_all(payload));
                });
                if !sent {
                    vring.get_mut().get_queue_mut().go_to_previous_position();
                    break;
                }
                written?;
                let length = writer.bytes_written() as u32;
                vring.add_used(head, length).map_err(io::Error::other)?;
                used_any = true;
            }
            if used_any && vring.needs_notification().map_err(io::Error::other)? {
                vring.signal_used_queue()?;
            }
            let more = self.event_idx && vring.enable_notification().map_err(io::Error::other)?;
            if !more || !self.muxer.has_packets() {
                return Ok(());
            }
        }
    }
}
