//! One connection: credit, buffer and half-closes. Packets come in, packets go out; bytes move between the packets and
//! a socket that the caller owns.
//!
//! What waits to be said to the guest is held in flags, never in a queue: however much a guest provokes, a connection's
//! memory is its buffer.

use std::collections::VecDeque;

use crate::{
    credit::{Inbound, Outbound},
    packet::{HOST_CID, Header, MAX_PAYLOAD_BYTES, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM},
};

/// The two ports that name a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) host_port: u32,
    pub(crate) guest_port: u32,
}

#[derive(Debug)]
pub(crate) struct Connection {
    key: Key,
    guest_cid: u64,
    inbound: Inbound,
    outbound: Outbound,
    /// Bytes from the guest that the socket has not taken.
    buffered: VecDeque<u8>,
    /// The guest sends no more.
    guest_done: bool,
    /// The guest reads no more.
    guest_deaf: bool,
    /// The socket's reader has gone: what the guest sends goes nowhere.
    host_deaf: bool,
    /// The socket has been read to its end.
    host_done: bool,
    /// The guest has not been told that it is connected.
    response_due: bool,
    /// What the guest has not been told of the host's half-closes.
    shutdown_due: u32,
    /// The guest has asked how much room there is.
    update_due: bool,
    /// The guest has been asked how much room it has, and has had none since.
    credit_asked: bool,
    /// The guest has had no room for longer than it takes to say so.
    credit_overdue: bool,
}

/// What the guest's packet means for the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// There may be bytes to write to it, or an end of it to close.
    Write,
    /// Nothing.
    None,
    /// The connection is over; nothing more is sent for it.
    Close,
    /// The connection is over, and the guest is to be told so.
    Reset,
}

impl Connection {
    /// A connection the guest asked for, which the host accepts with a buffer of so many bytes.
    pub(crate) fn accepted(key: Key, guest_cid: u64, request: &Header, buffer_bytes: u32) -> Self {
        let mut outbound = Outbound::new();
        // A guest that claims to have taken bytes already gets no credit here, and is reset by its next packet.
        let _ = outbound.learn(request.buf_alloc, request.fwd_cnt);
        Self {
            key,
            guest_cid,
            inbound: Inbound::new(buffer_bytes),
            outbound,
            buffered: VecDeque::new(),
            guest_done: false,
            guest_deaf: false,
            host_deaf: false,
            host_done: false,
            response_due: true,
            shutdown_due: 0,
            update_due: false,
            credit_asked: false,
            credit_overdue: false,
        }
    }

    /// The ports that name it.
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// Takes a packet of the guest, payload included.
    pub(crate) fn receive(&mut self, header: &Header, payload: &[u8]) -> Effect {
        if self.outbound.learn(header.buf_alloc, header.fwd_cnt).is_err() {
            return Effect::Reset;
        }
        if self.outbound.available() > 0 {
            self.credit_asked = false;
            self.credit_overdue = false;
        }
        match Op::from_wire(header.op) {
            Some(Op::Data) => self.receive_data(payload),
            Some(Op::CreditUpdate) => Effect::None,
            Some(Op::CreditRequest) => {
                self.update_due = true;
                Effect::None
            }
            Some(Op::Shutdown) => {
                self.guest_done |= header.flags & SHUTDOWN_SEND != 0;
                self.guest_deaf |= header.flags & SHUTDOWN_RECEIVE != 0;
                Effect::Write
            }
            Some(Op::Reset) => Effect::Close,
            Some(Op::Request | Op::Response) | None => Effect::Reset,
        }
    }

    fn receive_data(&mut self, payload: &[u8]) -> Effect {
        let length = payload.len() as u32;
        if self.guest_done || self.inbound.receive(length).is_err() {
            return Effect::Reset;
        }
        if self.host_deaf {
            // Sent before the guest could know. A reset would also cut off what the guest has still to read.
            self.inbound.forward(length);
            return Effect::None;
        }
        self.buffered.extend(payload);
        Effect::Write
    }

    /// Bytes for the socket, oldest first.
    pub(crate) fn to_socket(&self) -> (&[u8], &[u8]) {
        self.buffered.as_slices()
    }

    /// The socket took so many of them.
    pub(crate) fn written(&mut self, bytes: usize) {
        self.buffered.drain(..bytes);
        self.inbound.forward(bytes as u32);
    }

    /// The bytes the socket has not taken, when the connection is over.
    pub(crate) fn into_rest(self) -> VecDeque<u8> {
        self.buffered
    }

    /// Whether the socket's write side is to be closed: the guest has sent its last byte, and the socket has it.
    pub(crate) fn input_is_over(&self) -> bool {
        self.guest_done && self.buffered.is_empty()
    }

    /// Whether the guest reads no more.
    pub(crate) fn guest_is_deaf(&self) -> bool {
        self.guest_deaf
    }

    /// The socket's reader has gone.
    pub(crate) fn reader_gone(&mut self) {
        if !self.host_deaf {
            self.host_deaf = true;
            let dropped = self.buffered.len();
            self.buffered = VecDeque::new();
            self.inbound.forward(dropped as u32);
            self.shutdown_due |= SHUTDOWN_RECEIVE;
        }
    }

    /// The socket has been read to its end.
    pub(crate) fn read_to_end(&mut self) {
        if !self.host_done {
            self.host_done = true;
            self.shutdown_due |= SHUTDOWN_SEND;
        }
    }

    fn sends(&self) -> bool {
        !self.host_done && !self.guest_deaf
    }

    /// How many bytes a data packet of at most `room` payload bytes may carry now; 0 for none.
    pub(crate) fn may_send(&self, room: usize) -> usize {
        if !self.sends() {
            return 0;
        }
        (self.outbound.available() as usize)
            .min(room)
            .min(MAX_PAYLOAD_BYTES)
    }

    /// Whether only the guest's lack of room keeps bytes of the socket from being sent.
    pub(crate) fn is_blocked(&self) -> bool {
        self.sends() && self.outbound.available() == 0
    }

    /// A while has passed: if it is blocked still, the guest may be asked, and asked again.
    pub(crate) fn ask_again(&mut self) {
        self.credit_asked = false;
        self.credit_overdue = true;
    }

    /// Both directions have ended, and the guest waits for nothing but to hear so.
    ///
    /// A guest that neither sends nor reads any more need not wait for a slow reader of the host: what that has still
    /// to take outlives the connection.
    pub(crate) fn is_finished(&self) -> bool {
        let sent = self.host_done || self.guest_deaf;
        let received = self.host_deaf || self.input_is_over() || (self.guest_done && self.guest_deaf);
        sent && received && !self.response_due && self.shutdown_due == 0
    }

    /// The header of a data packet whose payload has been read from the socket.
    pub(crate) fn data(&mut self, length: u32) -> Header {
        self.outbound.send(length);
        self.header(Op::Data, 0, length)
    }

    /// The next control packet, if one is due. `readable`: the socket may have bytes.
    pub(crate) fn next_control(&mut self, readable: bool) -> Option<Header> {
        if self.response_due {
            self.response_due = false;
            return Some(self.header(Op::Response, 0, 0));
        }
        if self.shutdown_due != 0 {
            let flags = std::mem::take(&mut self.shutdown_due);
            return Some(self.header(Op::Shutdown, flags, 0));
        }
        if self.owes_update() {
            return Some(self.header(Op::CreditUpdate, 0, 0));
        }
        if readable && self.wants_credit() {
            self.credit_asked = true;
            return Some(self.header(Op::CreditRequest, 0, 0));
        }
        None
    }

    /// Whether [`Connection::next_control`] has something.
    pub(crate) fn owes_control(&self, readable: bool) -> bool {
        self.response_due || self.shutdown_due != 0 || self.owes_update() || (readable && self.wants_credit())
    }

    fn owes_update(&self) -> bool {
        self.update_due || self.inbound.owes_update(self.outbound.peer_buf_alloc())
    }

    /// Whether the guest should be asked for room. One that lacks bytes of it says by itself when it has some again;
    /// asked at once it would have to answer for every few bytes it reads.
    fn wants_credit(&self) -> bool {
        self.is_blocked() && !self.credit_asked && (self.credit_overdue || self.outbound.is_held_by_packets())
    }

    /// The packet that ends it.
    pub(crate) fn reset(&mut self) -> Header {
        self.header(Op::Reset, 0, 0)
    }

    fn header(&mut self, op: Op, flags: u32, len: u32) -> Header {
        let (buf_alloc, fwd_cnt) = self.inbound.advertise();
        self.update_due = false;
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: self.key.host_port,
            dst_port: self.key.guest_port,
            len,
            kind: TYPE_STREAM,
            op: op as u16,
            flags,
            buf_alloc,
            fwd_cnt,
        }
    }
}
