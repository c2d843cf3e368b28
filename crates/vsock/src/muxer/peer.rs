//! A guest made of packets: keeps its side of the protocol as Linux does, and holds the device to the other.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, VecDeque},
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
};

use super::{Muxer, Packet};
use crate::{
    packet::{HOST_CID, Header, MAX_PAYLOAD_BYTES, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM},
    ports::{Ports, VsockListener},
};

pub(super) const GUEST_CID: u64 = 3;
pub(super) const PORT: u32 = 0x1000;
/// What Linux has by default.
pub(super) const GUEST_BUFFER_BYTES: u32 = 256 << 10;
/// Payload of a packet in a receive buffer of a Linux guest.
pub(super) const LINUX_ROOM: usize = 4096 - 44;

/// When a guest says what its program has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Updates {
    /// Linux before 6.8: when less than 64 KiB seem free to the host.
    Scarce,
    /// Linux from 6.8: also when nothing is left to read.
    Prompt,
}

/// A socket in the guest.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) buf_alloc: u32,
    /// Bytes the program has read, and those the host has been told of.
    fwd_cnt: u32,
    told_fwd_cnt: u32,
    unread: VecDeque<u8>,
    sent: u32,
    peer_buf_alloc: u32,
    peer_fwd_cnt: u32,
    pub(super) connected: bool,
    pub(super) reset: bool,
    /// What the host said of its half-closes.
    pub(super) peer_shutdown: u32,
    /// Packets received of each operation.
    pub(super) received: BTreeMap<u16, usize>,
}

impl Socket {
    /// How many bytes may be sent: Linux holds itself to the smaller of both buffers.
    pub(super) fn credit(&self) -> usize {
        let limit = self.peer_buf_alloc.min(self.buf_alloc);
        limit.saturating_sub(self.sent.wrapping_sub(self.peer_fwd_cnt)) as usize
    }

    pub(super) fn count(&self, op: Op) -> usize {
        self.received.get(&(op as u16)).copied().unwrap_or(0)
    }
}

pub(super) struct Peer {
    pub(super) muxer: Muxer,
    pub(super) ports: Ports,
    pub(super) listener: VsockListener,
    pub(super) updates: Updates,
    /// Payload that fits into the guest's receive buffers.
    pub(super) room: usize,
    pub(super) sockets: BTreeMap<u32, Socket>,
    /// Resets for ports that have no socket.
    pub(super) stray_resets: usize,
}

impl Peer {
    pub(super) fn new() -> Self {
        let ports = Ports::default();
        let listener = ports.listen(PORT).unwrap();
        Self {
            muxer: Muxer::new(GUEST_CID, ports.clone()).unwrap(),
            ports,
            listener,
            updates: Updates::Prompt,
            room: LINUX_ROOM,
            sockets: BTreeMap::new(),
            stray_resets: 0,
        }
    }

    /// Asks for a connection to [`PORT`] from a port of the guest.
    pub(super) fn dial(&mut self, guest_port: u32) {
        self.dial_with(guest_port, GUEST_BUFFER_BYTES);
    }

    pub(super) fn dial_with(&mut self, guest_port: u32, buf_alloc: u32) {
        self.sockets.insert(
            guest_port,
            Socket {
                buf_alloc,
                fwd_cnt: 0,
                told_fwd_cnt: 0,
                unread: VecDeque::new(),
                sent: 0,
                peer_buf_alloc: 0,
                peer_fwd_cnt: 0,
                connected: false,
                reset: false,
                peer_shutdown: 0,
                received: BTreeMap::new(),
            },
        );
        self.say(guest_port, Op::Request, 0);
    }

    /// A connection, and the host's end of it.
    pub(super) fn connect(&mut self, guest_port: u32) -> UnixStream {
        self.dial(guest_port);
        self.pump();
        assert!(self.sockets[&guest_port].connected);
        self.listener.try_accept().unwrap()
    }

    pub(super) fn header(&mut self, guest_port: u32, op: Op, flags: u32, len: usize) -> Header {
        let socket = self.sockets.get_mut(&guest_port).unwrap();
        socket.told_fwd_cnt = socket.fwd_cnt;
        Header {
            src_cid: GUEST_CID,
            dst_cid: HOST_CID,
            src_port: guest_port,
            dst_port: PORT,
            len: len as u32,
            kind: TYPE_STREAM,
            op: op as u16,
            flags,
            buf_alloc: socket.buf_alloc,
            fwd_cnt: socket.fwd_cnt,
        }
    }

    /// Sends a packet without payload.
    pub(super) fn say(&mut self, guest_port: u32, op: Op, flags: u32) {
        let header = self.header(guest_port, op, flags, 0);
        self.muxer.receive(&header, &[]);
    }

    /// Sends as much as credit and the largest packet let it; returns how much.
    pub(super) fn send(&mut self, guest_port: u32, bytes: &[u8]) -> usize {
        let socket = self.sockets.get_mut(&guest_port).unwrap();
        let length = bytes.len().min(socket.credit()).min(MAX_PAYLOAD_BYTES);
        if length > 0 {
            socket.sent = socket.sent.wrapping_add(length as u32);
            let header = self.header(guest_port, Op::Data, 0, length);
            self.muxer.receive(&header, &bytes[..length]);
        }
        length
    }

    /// The program reads so much at most, and the guest says so when its kernel would.
    pub(super) fn read(&mut self, guest_port: u32, limit: usize) -> Vec<u8> {
        let socket = self.sockets.get_mut(&guest_port).unwrap();
        let length = limit.min(socket.unread.len());
        let bytes: Vec<u8> = socket.unread.drain(..length).collect();
        socket.fwd_cnt = socket.fwd_cnt.wrapping_add(length as u32);
        let unsaid = socket.fwd_cnt.wrapping_sub(socket.told_fwd_cnt);
        let free = socket.buf_alloc.saturating_sub(unsaid);
        let drained = self.updates == Updates::Prompt && socket.unread.is_empty();
        if unsaid > 0 && !socket.reset && (free < MAX_PAYLOAD_BYTES as u32 || drained) {
            self.say(guest_port, Op::CreditUpdate, 0);
        }
        bytes
    }

    /// Lets the device look at its sockets and takes every packet it has. How many there were.
    pub(super) fn pump(&mut self) -> usize {
        let mut count = 0;
        loop {
            self.muxer.poll();
            let before = count;
            while let Some((header, payload)) = self.next_packet() {
                self.take(&header, &payload);
                count += 1;
            }
            if count == before {
                return count;
            }
        }
    }

    /// The next packet, unlooked at.
    pub(super) fn next_packet(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut packet = None;
        let sent = self.muxer.send_next(self.room, |Packet { header, payload }| {
            packet = Some((header, payload.to_vec()));
        });
        assert_eq!(sent, packet.is_some());
        packet
    }

    fn take(&mut self, header: &Header, payload: &[u8]) {
        assert_eq!(header.dst_cid, GUEST_CID);
        assert_eq!(header.len as usize, payload.len());
        assert!(payload.len() <= self.room);
        let op = Op::from_wire(header.op).unwrap();
        let Some(socket) = self
            .sockets
            .get_mut(&header.dst_port)
            .filter(|socket| !socket.reset)
        else {
            assert_eq!(
                op,
                Op::Reset,
                "for a guest's port {} without a socket",
                header.dst_port
            );
            self.stray_resets += 1;
            return;
        };
        *socket.received.entry(header.op).or_default() += 1;
        if op != Op::Reset {
            socket.peer_buf_alloc = header.buf_alloc;
            socket.peer_fwd_cnt = header.fwd_cnt;
            assert!(
                socket.connected || op == Op::Response,
                "{op:?} before the response"
            );
        }
        match op {
            Op::Response => {
                assert!(!socket.connected, "two responses");
                socket.connected = true;
            }
            Op::Reset => socket.reset = true,
            Op::Shutdown => socket.peer_shutdown |= header.flags,
            Op::Data => {
                assert!(!payload.is_empty());
                assert_eq!(socket.peer_shutdown & SHUTDOWN_SEND, 0, "data after its end");
                socket.unread.extend(payload);
                assert!(
                    socket.unread.len() <= socket.buf_alloc as usize,
                    "credit exceeded"
                );
            }
            Op::CreditUpdate => {}
            Op::CreditRequest => self.say(header.dst_port, Op::CreditUpdate, 0),
            Op::Request => panic!("the host dials nobody"),
        }
    }

    /// The program closes its socket: Linux says so and waits for the answer.
    pub(super) fn close(&mut self, guest_port: u32) {
        self.say(guest_port, Op::Shutdown, SHUTDOWN_RECEIVE | SHUTDOWN_SEND);
    }

    pub(super) fn socket(&self, guest_port: u32) -> &Socket {
        &self.sockets[&guest_port]
    }
}

/// What the host can read now without waiting, and whether the end has come.
pub(super) fn read_some(stream: &mut UnixStream, limit: usize) -> (Vec<u8>, bool) {
    let mut bytes = vec![0; limit];
    let mut length = 0;
    while length < limit {
        match stream.read(&mut bytes[length..]) {
            Ok(0) => {
                bytes.truncate(length);
                return (bytes, true);
            }
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("reading the host's end: {error}"),
        }
    }
    bytes.truncate(length);
    (bytes, false)
}

/// Writes without waiting; how much was taken.
pub(super) fn write_some(stream: &mut UnixStream, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("writing the host's end: {error}"),
        }
    }
    written
}

/// Bytes that differ from their neighbours and from the same place in another stream.
pub(super) fn pattern(seed: u32, from: usize, length: usize) -> Vec<u8> {
    (from..from + length)
        .map(|at| {
            let mixed = (at as u32).wrapping_mul(0x9e37_79b1) ^ seed.wrapping_mul(0x85eb_ca6b);
            (mixed >> 24) as u8 ^ mixed as u8
        })
        .collect()
}
