//! The guest's queues (virtio 1.2 §2.7, §5.10.6): packets out of one, packets into the other.
//!
//! Whatever a queue holds was put there by the guest. A single bad buffer is given back and forgotten. A queue that
//! cannot be followed at all ends the streams and is left alone until the guest sets the device up again; it must not
//! end the thread that serves it, which would never be started again.

use std::io::{Read, Write};

use vhost_user_backend::{VringRwLock, VringT};
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};

use crate::{
    muxer::{Muxer, Packet},
    packet::{HEADER_BYTES, Header, MAX_PAYLOAD_BYTES},
};

pub(crate) type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
pub(crate) type Vring = VringRwLock<Memory>;
type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// The receive queue: packets for the guest (virtio 1.2 §5.10.2).
pub(crate) const RX: u16 = 0;
/// The transmit queue: packets of the guest.
pub(crate) const TX: u16 = 1;

/// Packets taken or given at a time. A guest that never stops must not keep the sockets, or the end of the device,
/// waiting.
const BUDGET: usize = 256;

/// A queue cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

impl Broken {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The guest has given room to receive.
    Room,
    /// The guest has packets, or the budget ran out before.
    Packets,
    /// Sockets have changed.
    Sockets,
}

/// The queues' state: what is beside them in the guest's memory.
pub(crate) struct Rings {
    pub(crate) muxer: Muxer,
    memory: Option<Memory>,
    event_idx: bool,
    scratch: Vec<u8>,
    /// Where reading of receive and transmit queue stopped.
    positions: [Option<u16>; 2],
    broken: bool,
}

impl Rings {
    pub(crate) fn new(muxer: Muxer) -> Self {
        Self {
            muxer,
            memory: None,
            event_idx: false,
            scratch: vec![0; MAX_PAYLOAD_BYTES],
            positions: [None; 2],
            broken: false,
        }
    }

    pub(crate) fn set_event_idx(&mut self, enabled: bool) {
        self.event_idx = enabled;
    }

    pub(crate) fn set_memory(&mut self, memory: Option<Memory>) {
        self.memory = memory;
    }

    /// A queue has been stopped: it starts with what the guest sets up then.
    pub(crate) fn stopped(&mut self) {
        self.broken = false;
    }

    /// Does what the event asks for. Whether there is more that was left for lack of budget.
    pub(crate) fn turn(&mut self, event: Event, vrings: &[Vring]) -> bool {
        if event == Event::Sockets {
            self.muxer.poll();
        }
        // Asked once: the hypervisor may start or stop a queue at any time, but gives a stopped one another position
        // only when nothing works on it.
        let served = [RX, TX].map(|queue| is_served(&vrings[usize::from(queue)]));
        self.notice_restart(vrings, served);
        if self.broken {
            return false;
        }
        let more = self.serve(event, vrings, served);
        for queue in [RX, TX]
            .map(usize::from)
            .into_iter()
            .filter(|queue| served[*queue])
        {
            self.positions[queue] = Some(vrings[queue].queue_next_avail());
        }
        more.unwrap_or_else(|error| {
            if served != [RX, TX].map(|queue| is_served(&vrings[usize::from(queue)])) {
                // Stopped in between.
                return false;
            }
            tracing::warn!(%error, "the guest's vsock queues make no sense; its streams end");
            self.broken = true;
            self.muxer.reset();
            false
        })
    }

    /// A guest that boots anew in the same VM, or binds its driver again, starts its queues elsewhere than they were
    /// stopped, and knows nothing of its streams of before. A VM that was paused goes on where it stopped.
    fn notice_restart(&mut self, vrings: &[Vring], served: [bool; 2]) {
        for queue in [RX, TX]
            .map(usize::from)
            .into_iter()
            .filter(|queue| served[*queue])
        {
            let starts_at = vrings[queue].queue_next_avail();
            if self.positions[queue].is_some_and(|stopped_at| stopped_at != starts_at) {
                tracing::info!("the guest has set its vsock device up anew");
                self.positions[queue] = None;
                self.broken = false;
                self.muxer.reset();
            }
        }
    }

    fn serve(&mut self, event: Event, vrings: &[Vring], served: [bool; 2]) -> Result<bool, Broken> {
        let Some(memory) = self.memory.clone() else {
            return Ok(false);
        };
        let (rx, tx) = (usize::from(RX), usize::from(TX));
        let mut more = false;
        if event == Event::Packets && served[tx] {
            more |= self.transmit(&vrings[tx], &memory)?;
        }
        if served[rx] {
            more |= self.receive(&vrings[rx], &memory)?;
        }
        Ok(more)
    }

    /// Takes the packets the guest has put in its transmit queue. Whether the budget ran out.
    fn transmit(&mut self, vring: &Vring, memory: &Memory) -> Result<bool, Broken> {
        let mut taken = 0;
        let mut promised = false;
        loop {
            self.forget_notifications(vring)?;
            let before = taken;
            while taken < BUDGET {
                let Some(chain) = next_chain(vring, memory)? else {
                    break;
                };
                let head = chain.head_index();
                let guard = memory.memory();
                match chain.reader(&guard) {
                    Ok(mut reader) => self.take(&mut reader),
                    Err(error) => tracing::debug!(%error, "a transmit descriptor that cannot be read"),
                }
                vring.add_used(head, 0).map_err(Broken::of)?;
                taken += 1;
            }
            if taken > before {
                notify(vring)?;
            } else if promised {
                return Err(unreadable());
            }
            if taken >= BUDGET {
                return Ok(true);
            }
            promised = self.want_notifications(vring)?;
            if !promised {
                return Ok(false);
            }
        }
    }

    fn take(&mut self, reader: &mut impl Read) {
        let mut header = [0; HEADER_BYTES];
        if reader.read_exact(&mut header).is_err() {
            tracing::debug!("a transmit descriptor shorter than a header");
            return;
        }
        let header = Header::decode(&header);
        let length = header.len as usize;
        if length > MAX_PAYLOAD_BYTES || reader.read_exact(&mut self.scratch[..length]).is_err() {
            tracing::debug!(length, "a packet longer than its descriptors or the limit");
            self.muxer.receive_broken(&header);
            return;
        }
        self.muxer.receive(&header, &self.scratch[..length]);
    }

    /// Fills the guest's receive queue while there are packets and descriptors. Whether the budget ran out.
    fn receive(&mut self, vring: &Vring, memory: &Memory) -> Result<bool, Broken> {
        let mut given = 0;
        let mut promised = false;
        loop {
            self.forget_notifications(vring)?;
            let before = given;
            while self.muxer.has_packets() && given < BUDGET {
                let Some(chain) = next_chain(vring, memory)? else {
                    break;
                };
                let head = chain.head_index();
                let guard = memory.memory();
                let length = match chain.writer(&guard) {
                    // Not for a header alone: data would find no room in it, and be tried for ever.
                    Ok(mut writer) if writer.available_bytes() > HEADER_BYTES => {
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
                        written.map_err(Broken::of)?;
                        writer.bytes_written() as u32
                    }
                    _ => {
                        tracing::debug!("a receive descriptor without room for a packet");
                        0
                    }
                };
                vring.add_used(head, length).map_err(Broken::of)?;
                given += 1;
            }
            if given > before {
                notify(vring)?;
            } else if promised && self.muxer.has_packets() {
                return Err(unreadable());
            }
            if given >= BUDGET {
                return Ok(self.muxer.has_packets());
            }
            // Asked for even without packets: the next one may find no descriptor, and must hear of the first.
            promised = self.want_notifications(vring)?;
            if !promised || !self.muxer.has_packets() {
                return Ok(false);
            }
        }
    }

    /// The guest need not notify while its queue is worked on. Without `VIRTIO_F_EVENT_IDX` it always does.
    fn forget_notifications(&self, vring: &Vring) -> Result<(), Broken> {
        if self.event_idx {
            vring.disable_notification().map_err(Broken::of)?;
        }
        Ok(())
    }

    /// The guest is to notify again. Whether it has put something in the queue before it could know.
    fn want_notifications(&self, vring: &Vring) -> Result<bool, Broken> {
        Ok(self.event_idx && vring.enable_notification().map_err(Broken::of)?)
    }
}

/// Whether the hypervisor has started the queue, and not stopped it since.
fn is_served(vring: &Vring) -> bool {
    let state = vring.get_ref();
    state.is_enabled() && state.get_queue().ready()
}

fn next_chain(vring: &Vring, memory: &Memory) -> Result<Option<Chain>, Broken> {
    let mut state = vring.get_mut();
    let mut chains = state.get_queue_mut().iter(memory.memory()).map_err(Broken::of)?;
    Ok(chains.next())
}

fn unreadable() -> Broken {
    Broken("a queue that says it holds more cannot be read".to_owned())
}

/// Tells the guest of used buffers, if it wants to hear.
fn notify(vring: &Vring) -> Result<(), Broken> {
    if vring.needs_notification().map_err(Broken::of)?
        && let Err(error) = vring.signal_used_queue()
    {
        // The eventfd is the hypervisor's; without it the VM is on its way out.
        tracing::warn!(%error, "interrupting the guest");
    }
    Ok(())
}
