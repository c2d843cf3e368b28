//! All connections of one guest, and their sockets.
//!
//! A connection's end on the host is one half of a socket pair; the other half is here, non-blocking. Bytes the guest
//! sent wait in the connection until the socket takes them, which is what its credit counts. Bytes for the guest are
//! read from the socket only when there is credit for them and a descriptor to put them in.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::Shutdown,
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::mpsc;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::{
    connection::{Connection, Effect, Key},
    packet::{HOST_CID, Header, Op, TYPE_STREAM},
};

/// Connections a guest may have open at once.
const MAX_CONNECTIONS: usize = 4096;
/// Refusals waiting for the guest to make room; further ones are dropped, and the guest's own timeout answers.
const MAX_REFUSALS: usize = 1024;
/// Bytes read from a socket at a time.
const STAGE_BYTES: usize = 64 << 10;

/// Who listens on which port of the host.
pub(crate) type Listeners = Arc<Mutex<HashMap<u32, mpsc::UnboundedSender<UnixStream>>>>;

/// A packet for the guest.
pub(crate) struct Packet<'a> {
    pub(crate) header: Header,
    pub(crate) payload: &'a [u8],
}

pub(crate) struct Muxer {
    guest_cid: u64,
    listeners: Listeners,
    connections: BTreeMap<Key, Entry>,
    /// Connections that may have something to send, each at most once.
    ready: VecDeque<Key>,
    refusals: VecDeque<Header>,
    epoll: Epoll,
    by_token: HashMap<u64, Key>,
    next_token: u64,
    /// Sockets of connections the guest has closed, with bytes their readers have not taken.
    draining: Vec<(UnixStream, VecDeque<u8>)>,
}

struct Entry {
    connection: Connection,
    socket: UnixStream,
    token: u64,
    /// The socket may have bytes, or its end.
    readable: bool,
    /// The socket may take bytes.
    writable: bool,
    /// Its write side has been shut down.
    input_closed: bool,
    /// Bytes read from the socket that no descriptor had room for.
    staged: Vec<u8>,
    staged_from: usize,
    queued: bool,
}

impl Entry {
    fn staged(&self) -> &[u8] {
        &self.staged[self.staged_from..]
    }

    /// Hands the guest's bytes to the socket as far as it takes them.
    fn write(&mut self) {
        while self.writable {
            let (first, second) = self.connection.to_socket();
            if first.is_empty() && second.is_empty() {
                break;
            }
            match (&self.socket).write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(written) => self.connection.written(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.connection.reader_gone();
                    break;
                }
            }
        }
        if self.connection.input_is_over() && !self.input_closed {
            self.input_closed = true;
            // A reader that has gone needs no end.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Reads as much from the socket as there is credit for, if nothing is staged.
    fn stage(&mut self) {
        let credit = self.connection.may_send(STAGE_BYTES);
        if !self.readable || credit == 0 || !self.staged().is_empty() {
            return;
        }
        self.staged.resize(credit, 0);
        self.staged_from = 0;
        let read = loop {
            match (&self.socket).read(&mut self.staged) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let length = match read {
            Ok(0) => {
                self.readable = false;
                self.connection.read_to_end();
                0
            }
            Ok(length) => length,
            Err(error) => {
                self.readable = false;
                if error.kind() != ErrorKind::WouldBlock {
                    self.connection.read_to_end();
                }
                0
            }
        };
        self.staged.truncate(length);
    }

    fn has_something(&self) -> bool {
        self.connection.owes_control()
            || !self.staged().is_empty()
            || (self.readable && self.connection.wants_reading())
            || self.connection.is_finished()
    }
}

impl Muxer {
    pub(crate) fn new(guest_cid: u64, listeners: Listeners) -> io::Result<Self> {
        Ok(Self {
            guest_cid,
            listeners,
            connections: BTreeMap::new(),
            ready: VecDeque::new(),
            refusals: VecDeque::new(),
            epoll: Epoll::new()?,
            by_token: HashMap::new(),
            next_token: 0,
            draining: Vec::new(),
        })
    }

    /// Readable when a socket has changed.
    pub(crate) fn poll_fd(&self) -> i32 {
        self.epoll.as_raw_fd()
    }

    /// Takes one packet of the guest.
    pub(crate) fn receive(&mut self, header: &Header, payload: &[u8]) {
        let key = Key {
            host_port: header.dst_port,
            guest_port: header.src_port,
        };
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID || header.kind != TYPE_STREAM {
            self.refuse(header);
            return;
        }
        if header.op == Op::Request as u16 {
            self.open(key, header);
            return;
        }
        let Some(entry) = self.connections.get_mut(&key) else {
            self.refuse(header);
            return;
        };
        match entry.connection.receive(header, payload) {
            Effect::Write => entry.write(),
            Effect::None => {}
            Effect::Close => {
                self.close(key);
                return;
            }
            Effect::Reset => {
                let reset = entry.connection.reset();
                self.close(key);
                self.refusals.push_back(reset);
                return;
            }
        }
        self.schedule(key);
    }

    fn open(&mut self, key: Key, header: &Header) {
        // The guest has forgotten an earlier connection of these ports.
        if self.connections.contains_key(&key) {
            self.close(key);
        }
        if self.connections.len() >= MAX_CONNECTIONS {
            self.refuse(header);
            return;
        }
        let connection = Connection::accepted(key, self.guest_cid, header);
        let listener = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key.host_port)
            .cloned();
        let opened = listener
            .ok_or(ErrorKind::ConnectionRefused.into())
            .and_then(|listener| {
                let (theirs, ours) = UnixStream::pair()?;
                theirs.set_nonblocking(true)?;
                self.add(key, connection, ours)?;
                listener
                    .send(theirs)
                    .map_err(|_| io::Error::from(ErrorKind::ConnectionRefused))
            });
        if opened.is_err() {
            self.close(key);
            self.refuse(header);
            return;
        }
        self.schedule(key);
    }

    fn add(&mut self, key: Key, connection: Connection, socket: UnixStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let token = self.next_token;
        self.next_token += 1;
        let interest = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        self.epoll.ctl(
            ControlOperation::Add,
            socket.as_raw_fd(),
            EpollEvent::new(interest, token),
        )?;
        self.by_token.insert(token, key);
        let entry = Entry {
            connection,
            socket,
            token,
            readable: true,
            writable: true,
            input_closed: false,
            staged: Vec::new(),
            staged_from: 0,
            queued: false,
        };
        self.connections.insert(key, entry);
        Ok(())
    }

    /// Forgets a connection. What the guest sent before still reaches the socket.
    fn close(&mut self, key: Key) {
        let Some(mut entry) = self.connections.remove(&key) else {
            return;
        };
        self.by_token.remove(&entry.token);
        entry.write();
        let (first, second) = entry.connection.to_socket();
        if first.is_empty() && second.is_empty() {
            return;
        }
        if self.draining.len() >= MAX_CONNECTIONS {
            self.draining.remove(0);
        }
        let rest: VecDeque<u8> = first.iter().chain(second).copied().collect();
        self.draining.push((entry.socket, rest));
    }

    fn refuse(&mut self, header: &Header) {
        if header.op != Op::Reset as u16 && self.refusals.len() < MAX_REFUSALS {
            self.refusals.push_back(header.refusal());
        }
    }

    fn schedule(&mut self, key: Key) {
        if let Some(entry) = self.connections.get_mut(&key)
            && !entry.queued
            && entry.has_something()
        {
            entry.queued = true;
            self.ready.push_back(key);
        }
    }

    /// Looks at the sockets that have changed.
    pub(crate) fn poll(&mut self) {
        let mut events = [EpollEvent::default(); 64];
        loop {
            let count = match self.epoll.wait(0, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "polling the guest's streams");
                    return;
                }
            };
            for event in &events[..count] {
                let Some(key) = self.by_token.get(&event.data()).copied() else {
                    continue;
                };
                let Some(entry) = self.connections.get_mut(&key) else {
                    continue;
                };
                let set = event.event_set();
                if set.intersects(EventSet::IN | EventSet::READ_HANG_UP | EventSet::HANG_UP | EventSet::ERROR)
                {
                    entry.readable = true;
                }
                if set.contains(EventSet::HANG_UP) {
                    // Its other half is closed altogether; what it wrote before is still read.
                    entry.connection.reader_gone();
                }
                if set.intersects(EventSet::OUT | EventSet::HANG_UP | EventSet::ERROR) {
                    entry.writable = true;
                    entry.write();
                }
                self.schedule(key);
            }
            if count < events.len() {
                break;
            }
        }
        self.drain();
    }

    fn drain(&mut self) {
        self.draining.retain_mut(|(socket, rest)| {
            loop {
                let (first, second) = rest.as_slices();
                if first.is_empty() && second.is_empty() {
                    return false;
                }
                match socket.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                    Ok(written) => drop(rest.drain(..written)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return false,
                }
            }
        });
    }

    /// Whether a packet waits for the guest.
    pub(crate) fn has_packets(&self) -> bool {
        !self.refusals.is_empty() || !self.ready.is_empty()
    }

    /// Hands the next packet, with at most `room` bytes of payload, to `send`. Whether there was one.
    pub(crate) fn send_next(&mut self, room: usize, send: impl FnOnce(Packet<'_>)) -> bool {
        if let Some(header) = self.refusals.pop_front() {
            send(Packet { header, payload: &[] });
            return true;
        }
        while let Some(key) = self.ready.pop_front() {
            let Some(entry) = self.connections.get_mut(&key) else {
                continue;
            };
            entry.queued = false;
            entry.stage();
            if let Some(header) = entry.connection.next_control(entry.staged().is_empty()) {
                send(Packet { header, payload: &[] });
                self.schedule(key);
                return true;
            }
            let length = entry.connection.may_send(room).min(entry.staged().len());
            if length > 0 {
                let header = entry.connection.data(length as u32);
                let from = entry.staged_from;
                entry.staged_from += length;
                send(Packet {
                    header,
                    payload: &entry.staged[from..from + length],
                });
                self.schedule(key);
                return true;
            }
            if entry.connection.is_finished() && entry.staged().is_empty() {
                let header = entry.connection.reset();
                self.close(key);
                send(Packet { header, payload: &[] });
                return true;
            }
        }
        false
    }

    /// The guest has gone: every stream ends.
    pub(crate) fn reset(&mut self) {
        let keys: Vec<Key> = self.connections.keys().copied().collect();
        for key in keys {
            self.close(key);
        }
        self.ready.clear();
        self.refusals.clear();
    }
}
