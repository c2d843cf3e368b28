//! One connection: credit, buffer and half-closes. Packets come in, packets go out; bytes move between the packets and
//! a socket that the caller owns.

use std::collections::VecDeque;

use crate::{
    credit::{Inbound, Outbound, Violation},
    packet::{Header, MAX_PAYLOAD_BYTES, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM},
};

/// Bytes the host buffers for one connection before the guest has to wait.
pub(crate) const BUFFER_BYTES: u32 = 256 << 10;

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
    /// Control packets to send, in order, before any data.
    control: VecDeque<(Op, u32)>,
    credit_requested: bool,
}

/// What the guest's packet means for the socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// There may be bytes to write to it.
    Write,
    /// Nothing.
    None,
    /// The connection is over; nothing more is sent for it.
    Close,
    /// The connection is over, and the guest is to be told so.
    Reset,
}

impl Connection {
    /// A connection the guest asked for, which the host accepts.
    pub(crate) fn accepted(key: Key, guest_cid: u64, request: &Header) -> Self {
        let mut connection = Self::new(key, guest_cid);
        // A first header cannot break the rules: nothing was sent.
        let _ = connection.outbound.learn(request.buf_alloc, request.fwd_cnt);
        connection.control.push_back((Op::Response, 0));
        connection
    }

    fn new(key: Key, guest_cid: u64) -> Self {
        Self {
            key,
            guest_cid,
            inbound: Inbound::new(BUFFER_BYTES),
            outbound: Outbound::new(),
            buffered: VecDeque::new(),
            guest_done: false,
            guest_deaf: false,
            host_deaf: false,
            host_done: false,
            control: VecDeque::new(),
            credit_requested: false,
        }
    }

    /// Takes a packet of the guest, payload included.
    pub(crate) fn receive(&mut self, header: &Header, payload: &[u8]) -> Effect {
        match self.outbound.learn(header.buf_alloc, header.fwd_cnt) {
            Ok(()) => {}
            Err(Violation::Unsent | Violation::Overrun) => return Effect::Reset,
        }
        if self.outbound.available() > 0 {
            self.credit_requested = false;
        }
        match Op::from_wire(header.op) {
            Some(Op::Data) => self.receive_data(payload),
            Some(Op::CreditUpdate) => Effect::None,
            Some(Op::CreditRequest) => {
                self.control.push_back((Op::CreditUpdate, 0));
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
        if self.guest_done {
            return Effect::Reset;
        }
        let length = payload.len() as u32;
        if self.inbound.receive(length).is_err() {
            return Effect::Reset;
        }
        if self.host_deaf {
            self.inbound.forward(length);
            return Effect::Reset;
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

    /// Whether the socket's write side is to be closed: the guest has sent its last byte, and the socket has it.
    pub(crate) fn input_is_over(&self) -> bool {
        self.guest_done && self.buffered.is_empty()
    }

    /// The socket's reader has gone.
    pub(crate) fn reader_gone(&mut self) {
        if !self.host_deaf {
            self.host_deaf = true;
            let dropped = self.buffered.len();
            self.buffered.clear();
            self.inbound.forward(dropped as u32);
            self.control.push_back((Op::Shutdown, SHUTDOWN_RECEIVE));
        }
    }

    /// The socket has been read to its end.
    pub(crate) fn read_to_end(&mut self) {
        if !self.host_done {
            self.host_done = true;
            self.control.push_back((Op::Shutdown, SHUTDOWN_SEND));
        }
    }

    /// Whether the socket is worth reading: there is credit, and the guest reads.
    pub(crate) fn wants_reading(&self) -> bool {
        !self.host_done && !self.guest_deaf && self.outbound.available() > 0
    }

    /// Both directions have ended and the socket has every byte.
    pub(crate) fn is_finished(&self) -> bool {
        let sent = self.host_done || self.guest_deaf;
        let received = self.host_deaf || self.input_is_over();
        sent && received && self.control.is_empty()
    }

    /// How many bytes a data packet of at most `room` payload bytes may carry now; 0 for none.
    pub(crate) fn may_send(&self, room: usize) -> usize {
        if !self.wants_reading() {
            return 0;
        }
        (self.outbound.available() as usize)
            .min(room)
            .min(MAX_PAYLOAD_BYTES)
    }

    /// The header of a data packet whose payload has been read from the socket.
    pub(crate) fn data(&mut self, length: u32) -> Header {
        self.outbound.send(length);
        self.header(Op::Data, 0, length)
    }

    /// Whether there is more to send than the guest has room for, and it has not been asked about that.
    pub(crate) fn wants_credit(&self) -> bool {
        !self.host_done && !self.guest_deaf && self.outbound.available() == 0 && !self.credit_requested
    }

    /// The next control packet, if one is due. `idle`: there are no bytes to send.
    pub(crate) fn next_control(&mut self, idle: bool) -> Option<Header> {
        if let Some((op, flags)) = self.control.pop_front() {
            return Some(self.header(op, flags, 0));
        }
        if self.inbound.owes_update(self.outbound.peer_buf_alloc()) {
            return Some(self.header(Op::CreditUpdate, 0, 0));
        }
        if !idle && self.wants_credit() {
            self.credit_requested = true;
            return Some(self.header(Op::CreditRequest, 0, 0));
        }
        None
    }

    /// Whether [`Connection::next_control`] has something.
    pub(crate) fn owes_control(&self) -> bool {
        !self.control.is_empty() || self.inbound.owes_update(self.outbound.peer_buf_alloc())
    }

    /// The packet that ends it.
    pub(crate) fn reset(&mut self) -> Header {
        self.header(Op::Reset, 0, 0)
    }

    fn header(&mut self, op: Op, flags: u32, len: u32) -> Header {
        let (buf_alloc, fwd_cnt) = self.inbound.advertise();
        Header {
            src_cid: crate::packet::HOST_CID,
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
