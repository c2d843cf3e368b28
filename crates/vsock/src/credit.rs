//! Credit: how many bytes each side may have under way (virtio 1.2 §5.10.6.3). Pure arithmetic modulo 2³².

use std::collections::VecDeque;

/// The least receive memory assumed to be taken by one packet at the guest, in bytes.
///
/// Recent Linux guests charge each queued packet its bookkeeping besides its payload and reset a connection whose
/// many small packets exceed the buffer, although the credit the protocol knows of is not exceeded.
const PACKET_COST_BYTES: u32 = 1024;

/// The most the guest is believed to buffer for one connection, in bytes. Keeps differences of counters below 2³¹.
const MAX_PEER_BUFFER_BYTES: u32 = 1 << 30;

/// The guest broke the rules of credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// It sent more than it had credit for.
    Overrun,
    /// It claims to have taken bytes that were never sent.
    Unsent,
}

/// The guest's credit towards the host: what it may send.
#[derive(Debug)]
pub(crate) struct Inbound {
    buf_alloc: u32,
    received: u32,
    forwarded: u32,
    advertised: u32,
}

impl Inbound {
    /// A buffer of `buf_alloc` bytes.
    pub(crate) fn new(buf_alloc: u32) -> Self {
        Self {
            buf_alloc,
            received: 0,
            forwarded: 0,
            advertised: 0,
        }
    }

    /// Takes `len` bytes into the buffer.
    pub(crate) fn receive(&mut self, len: u32) -> Result<(), Violation> {
        if u64::from(self.buffered()) + u64::from(len) > u64::from(self.buf_alloc) {
            return Err(Violation::Overrun);
        }
        self.received = self.received.wrapping_add(len);
        Ok(())
    }

    /// Bytes in the buffer now.
    pub(crate) fn buffered(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// `len` bytes have left the buffer.
    pub(crate) fn forward(&mut self, len: u32) {
        debug_assert!(len <= self.buffered(), "only what was received can be forwarded");
        self.forwarded = self.forwarded.wrapping_add(len);
    }

    /// Whether the guest should be told of the room it does not know of.
    ///
    /// A guest may hold itself to less than the buffer it is offered: Linux uses the smaller of it and its own, and
    /// its own is what it offers, `peer_buf_alloc`. A quarter of the smaller one keeps either guest from standing still.
    pub(crate) fn owes_update(&self, peer_buf_alloc: u32) -> bool {
        let unknown = self.forwarded.wrapping_sub(self.advertised);
        unknown >= (self.buf_alloc.min(peer_buf_alloc) / 4).max(1)
    }

    /// `buf_alloc` and `fwd_cnt` for a packet that leaves now; the guest knows of all room from then on.
    pub(crate) fn advertise(&mut self) -> (u32, u32) {
        self.advertised = self.forwarded;
        (self.buf_alloc, self.forwarded)
    }
}

/// The host's credit towards the guest: what may be sent to it.
#[derive(Debug)]
pub(crate) struct Outbound {
    buf_alloc: u32,
    forwarded: u32,
    sent: u32,
    /// Where each unacknowledged packet ends, oldest first. Bounded by [`Outbound::packet_limit`].
    packets: VecDeque<u32>,
}

impl Outbound {
    /// No credit yet.
    pub(crate) fn new() -> Self {
        Self {
            buf_alloc: 0,
            forwarded: 0,
            sent: 0,
            packets: VecDeque::new(),
        }
    }

    /// What the guest says of its buffer in a header; every header says it.
    pub(crate) fn learn(&mut self, buf_alloc: u32, fwd_cnt: u32) -> Result<(), Violation> {
        let taken = fwd_cnt.wrapping_sub(self.forwarded);
        if taken > i32::MAX as u32 {
            // Two threads of a Linux guest can queue their packets in the other order than they counted: an old
            // count says nothing new.
            return Ok(());
        }
        if taken > self.in_flight() {
            return Err(Violation::Unsent);
        }
        self.buf_alloc = buf_alloc;
        self.forwarded = fwd_cnt;
        while self
            .packets
            .front()
            .is_some_and(|end| fwd_cnt.wrapping_sub(*end) <= i32::MAX as u32)
        {
            self.packets.pop_front();
        }
        Ok(())
    }

    /// The guest's buffer, in bytes, as it says.
    pub(crate) fn peer_buf_alloc(&self) -> u32 {
        self.buf_alloc
    }

    /// Bytes sent that the guest has not yet taken.
    pub(crate) fn in_flight(&self) -> u32 {
        self.sent.wrapping_sub(self.forwarded)
    }

    /// Bytes that may be sent now.
    pub(crate) fn available(&self) -> u32 {
        if self.is_held_by_packets() {
            return 0;
        }
        self.buf_alloc
            .min(MAX_PEER_BUFFER_BYTES)
            .saturating_sub(self.in_flight())
    }

    /// Whether so many packets are under way that their number alone forbids another.
    ///
    /// The guest does not know of this limit of ours. Linux before 6.8 says nothing of what it has read while most of
    /// its buffer is free, so that it has to be asked.
    pub(crate) fn is_held_by_packets(&self) -> bool {
        self.packets.len() >= self.packet_limit()
    }

    /// A packet of `len` bytes leaves.
    pub(crate) fn send(&mut self, len: u32) {
        debug_assert!(
            len <= self.available(),
            "only what there is credit for can be sent"
        );
        self.sent = self.sent.wrapping_add(len);
        self.packets.push_back(self.sent);
    }

    fn packet_limit(&self) -> usize {
        ((self.buf_alloc / PACKET_COST_BYTES) as usize).clamp(1, 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_may_fill_the_buffer_and_not_a_byte_more() {
        let mut credit = Inbound::new(100);
        credit.receive(60).unwrap();
        credit.receive(40).unwrap();
        assert_eq!(credit.receive(1), Err(Violation::Overrun));
        credit.forward(1);
        credit.receive(1).unwrap();
        assert_eq!(credit.receive(u32::MAX), Err(Violation::Overrun));
    }

    #[test]
    fn an_update_is_owed_after_a_quarter_of_the_smaller_buffer() {
        let mut credit = Inbound::new(400);
        credit.receive(400).unwrap();
        assert!(!credit.owes_update(400));
        credit.forward(99);
        assert!(!credit.owes_update(400));
        assert!(credit.owes_update(200));
        credit.forward(1);
        assert!(credit.owes_update(400));
        assert_eq!(credit.advertise(), (400, 100));
        assert!(!credit.owes_update(400));
        credit.forward(1);
        assert!(credit.owes_update(0));
    }

    #[test]
    fn a_drained_buffer_never_leaves_the_guest_without_credit() {
        for peer in [1, 2, 3, 100, 4096, u32::MAX] {
            for len in 1..=400 {
                let mut credit = Inbound::new(400);
                credit.receive(len).unwrap();
                credit.forward(len);
                let view = 400 - len;
                let own_limit = 400.min(peer);
                let blocked = own_limit.saturating_sub(len) == 0;
                assert!(
                    !blocked || credit.owes_update(peer),
                    "len {len}, peer {peer}, view {view}"
                );
            }
        }
    }

    #[test]
    fn no_more_is_sent_than_the_guest_has_room_for() {
        let mut credit = Outbound::new();
        assert_eq!(credit.available(), 0);
        credit.learn(4096, 0).unwrap();
        assert_eq!(credit.available(), 4096);
        credit.send(4000);
        assert_eq!(credit.available(), 96);
        credit.learn(4096, 1000).unwrap();
        assert_eq!((credit.available(), credit.in_flight()), (1096, 3000));
        credit.learn(2000, 1000).unwrap();
        assert_eq!(
            credit.available(),
            0,
            "the guest shrank its buffer below what is in flight"
        );
    }

    #[test]
    fn a_guest_cannot_take_what_was_not_sent() {
        let mut credit = Outbound::new();
        credit.learn(100, 0).unwrap();
        credit.send(10);
        assert_eq!(credit.learn(100, 11), Err(Violation::Unsent));
    }

    #[test]
    fn an_older_count_after_a_newer_one_takes_no_credit_back() {
        let mut credit = Outbound::new();
        credit.learn(100, 0).unwrap();
        credit.send(50);
        credit.learn(100, 50).unwrap();
        credit.learn(100, 20).unwrap();
        assert_eq!(credit.available(), 100);
    }

    #[test]
    fn many_small_packets_count_for_more_than_their_bytes() {
        let mut credit = Outbound::new();
        credit.learn(8 * PACKET_COST_BYTES, 0).unwrap();
        for _ in 0..8 {
            assert!(credit.available() > 0);
            credit.send(1);
        }
        assert_eq!(credit.available(), 0);
        credit.learn(8 * PACKET_COST_BYTES, 3).unwrap();
        assert_eq!(credit.available(), 8 * PACKET_COST_BYTES - 5);
        assert_eq!(credit.packets.len(), 5);
    }

    #[test]
    fn the_counters_wrap() {
        let near = u32::MAX - 5;
        let mut inbound = Inbound {
            buf_alloc: 100,
            received: near,
            forwarded: near,
            advertised: near,
        };
        inbound.receive(100).unwrap();
        assert_eq!(inbound.buffered(), 100);
        inbound.forward(100);
        assert!(inbound.owes_update(100));
        assert_eq!(inbound.advertise(), (100, near.wrapping_add(100)));

        let mut outbound = Outbound {
            buf_alloc: 4096,
            forwarded: near,
            sent: near,
            packets: VecDeque::new(),
        };
        outbound.send(50);
        outbound.send(50);
        assert_eq!(outbound.in_flight(), 100);
        outbound.learn(4096, near.wrapping_add(50)).unwrap();
        assert_eq!((outbound.in_flight(), outbound.packets.len()), (50, 1));
        outbound.learn(4096, near.wrapping_add(100)).unwrap();
        assert_eq!((outbound.in_flight(), outbound.packets.len()), (0, 0));
    }
}
