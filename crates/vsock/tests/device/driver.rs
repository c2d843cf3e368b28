//! A guest's driver without a guest: queues in shared memory, set up over vhost-user as QEMU does it.
//!
//! It notifies the device, and waits for it, only where `VIRTIO_F_EVENT_IDX` tells it to: a notification the device
//! forgets to ask for, or to give, stops the test.

use std::{
    fs::File,
    os::fd::AsRawFd,
    path::Path,
    sync::atomic::{Ordering, fence},
    time::{Duration, Instant},
};

use vhost::{
    VhostBackend, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures},
};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::{EFD_NONBLOCK, EventFd},
};

pub(crate) const RX: usize = 0;
pub(crate) const TX: usize = 1;
/// What a queue has where nothing else is said: little, so that it runs full.
pub(crate) const QUEUE_SIZE: u16 = 8;
/// The most a queue may have.
pub(crate) const LARGE_QUEUE_SIZE: u16 = 1024;
pub(crate) const RX_BUFFER_BYTES: u32 = 4096;
pub(crate) const TX_BUFFER_BYTES: u32 = 66 << 10;
pub(crate) const HEADER_BYTES: usize = 44;

/// Where the guest's memory is in the "hypervisor".
const HOST_BASE: u64 = 0x7000_0000_0000;
pub(crate) const MEMORY_BYTES: u64 = 4 << 20;
const QUEUE_AREA_BYTES: u64 = 0x8000;
const BUFFERS_AT: u64 = 0x10_0000;

const F_VERSION_1: u64 = 1 << 32;
const F_EVENT_IDX: u64 = 1 << 29;
const F_PROTOCOL_FEATURES: u64 = 1 << 30;

pub(crate) const DESC_NEXT: u16 = 1;
pub(crate) const DESC_WRITE: u16 = 2;
pub(crate) const DESC_INDIRECT: u16 = 4;

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// One queue, as the driver sees it.
pub(crate) struct Queue {
    pub(crate) desc: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
    pub(crate) size: u16,
    pub(crate) avail_idx: u16,
    used_seen: u16,
    free: Vec<u16>,
    kick: EventFd,
    call: EventFd,
}

pub(crate) struct Driver {
    frontend: Frontend,
    pub(crate) memory: GuestMemoryMmap,
    _file: File,
    pub(crate) queues: Vec<Queue>,
    event_idx: bool,
}

impl Driver {
    /// Connects, sets everything up, and gives the device buffers to fill.
    pub(crate) fn start(socket: &Path, event_idx: bool) -> Self {
        let mut frontend = Frontend::connect(socket, 3).unwrap();
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        let mut wanted = F_VERSION_1 | F_PROTOCOL_FEATURES;
        if event_idx {
            wanted |= F_EVENT_IDX;
        }
        assert_eq!(offered & wanted, wanted);
        let protocol = frontend.get_protocol_features().unwrap();
        frontend
            .set_protocol_features(protocol & VhostUserProtocolFeatures::CONFIG)
            .unwrap();
        frontend.set_features(wanted).unwrap();

        let file = tempfile::tempfile().unwrap();
        file.set_len(MEMORY_BYTES).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let memory =
            GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), MEMORY_BYTES as usize, Some(offset))])
                .unwrap();
        frontend
            .set_mem_table(&[VhostUserMemoryRegionInfo {
                guest_phys_addr: 0,
                memory_size: MEMORY_BYTES,
                userspace_addr: HOST_BASE,
                mmap_offset: 0,
                mmap_handle: file.as_raw_fd(),
            }])
            .unwrap();
        let mut driver = Self {
            frontend,
            memory,
            _file: file,
            queues: Vec::new(),
            event_idx,
        };
        driver.set_up_queues();
        driver
    }

    /// Sets the queues up anew, as a guest does that boots.
    pub(crate) fn set_up_queues(&mut self) {
        self.queues.clear();
        for index in 0..3 {
            let base = 0x1000 + index as u64 * QUEUE_AREA_BYTES;
            self.memory
                .write_slice(&[0; QUEUE_AREA_BYTES as usize], GuestAddress(base))
                .unwrap();
            self.queues.push(Queue {
                desc: base,
                avail: base + 0x4000,
                used: base + 0x5000,
                size: QUEUE_SIZE,
                avail_idx: 0,
                used_seen: 0,
                free: (0..QUEUE_SIZE).collect(),
                kick: EventFd::new(EFD_NONBLOCK).unwrap(),
                call: EventFd::new(EFD_NONBLOCK).unwrap(),
            });
            self.start_queue(index, 0);
        }
        for _ in 0..QUEUE_SIZE {
            self.give_receive_buffer();
        }
    }

    /// Starts a queue where it was stopped.
    pub(crate) fn start_queue(&mut self, index: usize, base: u16) {
        let queue = &self.queues[index];
        let frontend = &mut self.frontend;
        frontend.set_vring_num(index, queue.size).unwrap();
        frontend.set_vring_base(index, base).unwrap();
        let addresses = VringConfigData {
            queue_max_size: LARGE_QUEUE_SIZE,
            queue_size: queue.size,
            flags: 0,
            desc_table_addr: HOST_BASE + queue.desc,
            used_ring_addr: HOST_BASE + queue.used,
            avail_ring_addr: HOST_BASE + queue.avail,
            log_addr: None,
        };
        frontend.set_vring_addr(index, &addresses).unwrap();
        frontend.set_vring_call(index, &queue.call).unwrap();
        frontend.set_vring_kick(index, &queue.kick).unwrap();
        frontend.set_vring_enable(index, true).unwrap();
        // Every change has been made when this is answered.
        frontend.get_features().unwrap();
    }

    /// Starts a queue anew with another size; what is in it is forgotten.
    pub(crate) fn resize_queue(&mut self, index: usize, size: u16) {
        self.stop_queue(index);
        let queue = &mut self.queues[index];
        (queue.size, queue.avail_idx, queue.used_seen) = (size, 0, 0);
        for at in [queue.avail, queue.used] {
            self.memory.write_slice(&[0; 0x1000], GuestAddress(at)).unwrap();
        }
        self.start_queue(index, 0);
    }

    /// Stops a queue; returns where.
    pub(crate) fn stop_queue(&mut self, index: usize) -> u16 {
        self.frontend.set_vring_enable(index, false).unwrap();
        self.frontend.get_vring_base(index).unwrap() as u16
    }

    /// Whether the hypervisor's side of the device still answers.
    pub(crate) fn config(&mut self) -> u64 {
        use vhost::vhost_user::message::VhostUserConfigFlags;

        let (_, config) = self
            .frontend
            .get_config(0, 8, VhostUserConfigFlags::empty(), &[0; 8])
            .unwrap();
        u64::from_le_bytes(config.try_into().unwrap())
    }

    fn load(&self, at: u64) -> u16 {
        self.memory.load(GuestAddress(at), Ordering::Acquire).unwrap()
    }

    pub(crate) fn store(&self, at: u64, value: u16) {
        self.memory
            .store(value, GuestAddress(at), Ordering::Release)
            .unwrap();
    }

    /// The memory of a buffer.
    pub(crate) fn buffer(index: usize, slot: u16) -> u64 {
        let size = u64::from(TX_BUFFER_BYTES.max(RX_BUFFER_BYTES));
        BUFFERS_AT + (index as u64 * u64::from(QUEUE_SIZE) + u64::from(slot)) * size
    }

    /// Writes one descriptor.
    pub(crate) fn describe(&self, index: usize, slot: u16, address: u64, length: u32, flags: u16, next: u16) {
        let at = GuestAddress(self.queues[index].desc + u64::from(slot) * 16);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.write_slice(&bytes, at).unwrap();
    }

    /// Makes a chain available, and notifies if the device wants to hear of it.
    pub(crate) fn offer(&mut self, index: usize, head: u16) {
        let queue = &mut self.queues[index];
        let old = queue.avail_idx;
        let at = queue.avail + 4 + u64::from(old % queue.size) * 2;
        queue.avail_idx = old.wrapping_add(1);
        let (new, avail, used, size) = (queue.avail_idx, queue.avail, queue.used, queue.size);
        self.store(at, head);
        self.store(avail + 2, new);
        fence(Ordering::SeqCst);
        let wanted_at = self.load(used + 4 + u64::from(size) * 8);
        let wanted = new.wrapping_sub(wanted_at).wrapping_sub(1) < new.wrapping_sub(old);
        if !self.event_idx || wanted {
            self.kick(index);
        }
    }

    pub(crate) fn kick(&self, index: usize) {
        self.queues[index].kick.write(1).unwrap();
    }

    /// The next used buffer, if there is one: slot and length.
    pub(crate) fn used(&mut self, index: usize) -> Option<(u16, u32)> {
        let queue = &self.queues[index];
        let (used, seen, size) = (queue.used, queue.used_seen, queue.size);
        if self.load(used + 2) == seen {
            return None;
        }
        let at = used + 4 + u64::from(seen % size) * 8;
        let slot: u32 = self.memory.read_obj(GuestAddress(at)).unwrap();
        let length: u32 = self.memory.read_obj(GuestAddress(at + 4)).unwrap();
        self.queues[index].used_seen = seen.wrapping_add(1);
        Some((slot as u16, length))
    }

    /// Waits for a used buffer, asleep until the device interrupts.
    pub(crate) fn wait_used(&mut self, index: usize, limit: Duration) -> Option<(u16, u32)> {
        let until = Instant::now() + limit;
        loop {
            // `used_event`: interrupt at the next one.
            let queue = &self.queues[index];
            self.store(queue.avail + 4 + u64::from(queue.size) * 2, queue.used_seen);
            fence(Ordering::SeqCst);
            if let Some(used) = self.used(index) {
                return Some(used);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let epoll = Epoll::new().unwrap();
            let call = &self.queues[index].call;
            let interest = EpollEvent::new(EventSet::IN, 0);
            epoll
                .ctl(ControlOperation::Add, call.as_raw_fd(), interest)
                .unwrap();
            epoll
                .wait(left.as_millis() as i32 + 1, &mut [EpollEvent::default()])
                .unwrap();
            let _ = call.read();
        }
    }

    fn give_receive_buffer(&mut self) {
        let Some(slot) = self.queues[RX].free.pop() else {
            return;
        };
        self.describe(RX, slot, Self::buffer(RX, slot), RX_BUFFER_BYTES, DESC_WRITE, 0);
        self.offer(RX, slot);
    }

    /// A slot of the transmit queue; waits until the device has given one back.
    pub(crate) fn transmit_slot(&mut self) -> u16 {
        while let Some((slot, _)) = self.used(TX) {
            self.queues[TX].free.push(slot);
        }
        if let Some(slot) = self.queues[TX].free.pop() {
            return slot;
        }
        let (slot, _) = self.wait_used(TX, LIMIT).expect("the device takes no packet");
        slot
    }

    /// Sends bytes as one packet: header and payload in descriptors of their own.
    pub(crate) fn transmit(&mut self, packet: &[u8]) {
        let slot = self.transmit_slot();
        self.memory
            .write_slice(packet, GuestAddress(Self::buffer(TX, slot)))
            .unwrap();
        self.describe(TX, slot, Self::buffer(TX, slot), packet.len() as u32, 0, 0);
        self.offer(TX, slot);
    }

    /// The next packet of the device.
    pub(crate) fn receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let (slot, length) = self.wait_used(RX, limit)?;
        let mut bytes = vec![0; length as usize];
        self.memory
            .read_slice(&mut bytes, GuestAddress(Self::buffer(RX, slot)))
            .unwrap();
        self.queues[RX].free.push(slot);
        self.give_receive_buffer();
        Some(bytes)
    }
}
