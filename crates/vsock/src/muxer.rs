//! All connections of one guest, and their sockets.
//!
//! A connection's end on the host is one half of a socket pair; the other half is here, non-blocking. Bytes the guest
//! sent wait in the connection until the socket takes them, which is what its credit counts. Bytes for the guest are
//! read from the socket only when there is credit for them and a descriptor to put them in, so none wait here.
//!
//! Connections with something to send take turns, one packet each. Whatever the guest does, the memory held for it is
//! bounded: by the number of connections, by their buffers ([`buffer_bytes`]), and by [`MAX_REFUSALS`].

#[cfg(test)]
mod crowd_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod stream_tests;

use std::{
    collections::{HashMap, VecDeque},
    io::{self, ErrorKind},
    os::{fd::AsRawFd, unix::net::UnixStream},
    time::Duration,
};

use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    timerfd::TimerFd,
};

use crate::{
    connection::{Connection, Effect, Key},
    linger::Lingering,
    packet::{HOST_CID, Header, MAX_PAYLOAD_BYTES, Op, TYPE_STREAM},
    ports::Ports,
    stream::Stream,
};

/// Connections a guest may have at once, those included whose last bytes the host has still to take.
const MAX_CONNECTIONS: usize = 4096;
/// Refusals waiting for the guest to make room; further ones are dropped, and the guest's own timeout answers.
const MAX_REFUSALS: usize = 1024;
/// What a connection's buffer on the host has at most, in bytes: as much as Linux takes advantage of.
const MAX_BUFFER_BYTES: usize = 256 << 10;
/// What it has at least, in bytes.
const MIN_BUFFER_BYTES: usize = 16 << 10;
/// What the first connections share among them at [`MAX_BUFFER_BYTES`] each.
const FULL_BUFFERS_BYTES: usize = 64 << 20;
/// How long a guest without room is left alone before it is asked about it.
const ASK_INTERVAL: Duration = Duration::from_millis(100);
/// The timer's token; sockets count up from 0.
const TIMER: u64 = u64::MAX;
/// Rounds of 64 events taken at a time. More stay in the epoll, which keeps it readable.
const MAX_POLL_ROUNDS: usize = 16;

/// The buffer of a connection that opens beside so many others.
///
/// 256 KiB while there are few. Beyond 256 connections each new one gets less, so that the most connections together
/// buffer 64 MiB × (1 + ln 16), less than 256 MiB, instead of a gigabyte.
fn buffer_bytes(others: usize) -> u32 {
    (FULL_BUFFERS_BYTES / (others + 1)).clamp(MIN_BUFFER_BYTES, MAX_BUFFER_BYTES) as u32
}

/// A packet for the guest.
pub(crate) struct Packet<'a> {
    pub(crate) header: Header,
    pub(crate) payload: &'a [u8],
}

pub(crate) struct Muxer {
    guest_cid: u64,
    ports: Ports,
    /// By token: never used twice, so that what is noted of one connection cannot be taken for another's.
    streams: HashMap<u64, Stream>,
    by_key: HashMap<Key, u64>,
    next_token: u64,
    /// Streams that may have something to send, each once.
    ready: VecDeque<u64>,
    refusals: VecDeque<Header>,
    lingering: Lingering,
    epoll: Epoll,
    /// Runs while a stream is blocked.
    timer: TimerFd,
    timer_runs: bool,
    /// Where payload for the guest passes through.
    buffer: Box<[u8]>,
}

impl Muxer {
    pub(crate) fn new(guest_cid: u64, ports: Ports) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let timer = TimerFd::new()?;
        // Edge-triggered, so that it need not be read: reading one that was set anew would wait for it.
        let interest = EventSet::IN | EventSet::EDGE_TRIGGERED;
        epoll.ctl(
            ControlOperation::Add,
            timer.as_raw_fd(),
            EpollEvent::new(interest, TIMER),
        )?;
        Ok(Self {
            guest_cid,
            ports,
            streams: HashMap::new(),
            by_key: HashMap::new(),
            next_token: 0,
            ready: VecDeque::new(),
            refusals: VecDeque::new(),
            lingering: Lingering::default(),
            epoll,
            timer,
            timer_runs: false,
            buffer: vec![0; MAX_PAYLOAD_BYTES].into_boxed_slice(),
        })
    }

    /// Readable when a socket has changed.
    pub(crate) fn poll_fd(&self) -> i32 {
        self.epoll.as_raw_fd()
    }

    /// Takes one packet of the guest.
    pub(crate) fn receive(&mut self, header: &Header, payload: &[u8]) {
        let Some(key) = self.addressed(header) else { return };
        if header.op == Op::Request as u16 {
            self.open(key, header);
            return;
        }
        let Some(token) = self.by_key.get(&key).copied() else {
            self.refuse(header);
            return;
        };
        let Some(stream) = self.streams.get_mut(&token) else {
            return;
        };
        match stream.connection.receive(header, payload) {
            Effect::Write => stream.write(),
            Effect::None => {}
            Effect::Close => {
                self.close(token);
                return;
            }
            Effect::Reset => {
                self.reset_stream(token);
                return;
            }
        }
        self.schedule(token);
    }

    /// Takes a packet whose payload could not be read, or is longer than any may be. Its connection is over: the bytes
    /// after it would be taken for those in it.
    pub(crate) fn receive_broken(&mut self, header: &Header) {
        let Some(key) = self.addressed(header) else { return };
        match self.by_key.get(&key).copied() {
            Some(token) => self.reset_stream(token),
            None => self.refuse(header),
        }
    }

    /// The connection a packet speaks of, if it is one for this device.
    fn addressed(&mut self, header: &Header) -> Option<Key> {
        if header.src_cid != self.guest_cid {
            // An answer would go to somebody else.
            tracing::debug!(
                src_cid = header.src_cid,
                "a packet that claims to come from another guest"
            );
            return None;
        }
        if header.dst_cid != HOST_CID || header.kind != TYPE_STREAM {
            self.refuse(header);
            return None;
        }
        Some(Key {
            host_port: header.dst_port,
            guest_port: header.src_port,
        })
    }

    fn open(&mut self, key: Key, header: &Header) {
        // The guest has forgotten an earlier connection of these ports.
        if let Some(earlier) = self.by_key.get(&key).copied() {
            self.close(earlier);
        }
        let others = self.streams.len() + self.lingering.len();
        if others >= MAX_CONNECTIONS {
            tracing::debug!(others, "the guest has too many connections");
            self.refuse(header);
            return;
        }
        let Some(place) = self.ports.place(key.host_port) else {
            self.refuse(header);
            return;
        };
        let connection = Connection::accepted(key, self.guest_cid, header, buffer_bytes(others));
        match self.add(connection) {
            Ok((token, theirs)) => {
                place.send(theirs);
                self.schedule(token);
            }
            Err(error) => {
                tracing::warn!(%error, port = key.host_port, "a stream of the guest could not be taken");
                self.refuse(header);
            }
        }
    }

    /// Makes the pair of sockets; returns the host's end.
    fn add(&mut self, connection: Connection) -> io::Result<(u64, UnixStream)> {
        let (theirs, ours) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        ours.set_nonblocking(true)?;
        let token = self.next_token;
        let interest = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        self.epoll.ctl(
            ControlOperation::Add,
            ours.as_raw_fd(),
            EpollEvent::new(interest, token),
        )?;
        self.next_token += 1;
        self.by_key.insert(connection.key(), token);
        self.streams.insert(token, Stream::new(connection, ours));
        Ok((token, theirs))
    }

    /// Forgets a connection. What the guest sent before still reaches the socket.
    fn close(&mut self, token: u64) {
        let Some(stream) = self.streams.remove(&token) else {
            return;
        };
        self.by_key.remove(&stream.connection.key());
        if stream.queued {
            // Left there, the tokens of a guest that opens and resets without end would pile up.
            self.ready.retain(|queued| *queued != token);
        }
        if let Some((socket, rest)) = stream.end() {
            self.lingering.push(token, socket, rest);
        }
    }

    /// Ends a connection and tells the guest so.
    fn reset_stream(&mut self, token: u64) {
        if let Some(stream) = self.streams.get_mut(&token) {
            let reset = stream.connection.reset();
            self.close(token);
            self.push_refusal(reset);
        }
    }

    fn refuse(&mut self, header: &Header) {
        if header.op != Op::Reset as u16 {
            self.push_refusal(header.refusal());
        }
    }

    fn push_refusal(&mut self, refusal: Header) {
        if self.refusals.len() < MAX_REFUSALS {
            self.refusals.push_back(refusal);
        }
    }

    /// Lets a stream have its turn if it has something; watches the time if it only waits for room.
    fn schedule(&mut self, token: u64) {
        let Some(stream) = self.streams.get_mut(&token) else {
            return;
        };
        if !stream.queued && stream.has_something() {
            stream.queued = true;
            self.ready.push_back(token);
        }
        if stream.is_blocked() && !self.timer_runs {
            match self.timer.reset(ASK_INTERVAL, None) {
                Ok(()) => self.timer_runs = true,
                Err(error) => tracing::error!(%error, "setting a timer for the guest's streams"),
            }
        }
    }

    /// Looks at the sockets that have changed.
    pub(crate) fn poll(&mut self) {
        let mut events = [EpollEvent::default(); 64];
        for _ in 0..MAX_POLL_ROUNDS {
            let count = match self.epoll.wait(0, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "polling the guest's streams");
                    return;
                }
            };
            for event in &events[..count] {
                self.woken(event.data(), event.event_set());
            }
            if count < events.len() {
                break;
            }
        }
    }

    fn woken(&mut self, token: u64, event: EventSet) {
        if token == TIMER {
            self.ask_again();
        } else if let Some(stream) = self.streams.get_mut(&token) {
            stream.woken(event);
            self.schedule(token);
        } else {
            self.lingering.woken(token);
        }
    }

    /// Asks every guest's end that has no room whether it has some now.
    fn ask_again(&mut self) {
        self.timer_runs = false;
        let mut blocked = Vec::new();
        for (token, stream) in &mut self.streams {
            if stream.is_blocked() {
                stream.connection.ask_again();
                blocked.push(*token);
            }
        }
        for token in blocked {
            self.schedule(token);
        }
    }

    /// Whether a packet may wait for the guest.
    pub(crate) fn has_packets(&self) -> bool {
        !self.refusals.is_empty() || !self.ready.is_empty()
    }

    /// Hands the next packet, with at most `room` bytes of payload, to `send`. Whether there was one. `room` is not 0.
    pub(crate) fn send_next(&mut self, room: usize, send: impl FnOnce(Packet<'_>)) -> bool {
        if let Some(header) = self.refusals.pop_front() {
            send(Packet { header, payload: &[] });
            return true;
        }
        while let Some(token) = self.ready.pop_front() {
            let Some(stream) = self.streams.get_mut(&token) else {
                continue;
            };
            stream.queued = false;
            if let Some(header) = stream.next_control() {
                send(Packet { header, payload: &[] });
                self.schedule(token);
                return true;
            }
            if stream.connection.is_finished() {
                let header = stream.connection.reset();
                self.close(token);
                send(Packet { header, payload: &[] });
                return true;
            }
            let length = stream.read(&mut self.buffer, room);
            if length > 0 {
                let header = stream.connection.data(length as u32);
                let payload = &self.buffer[..length];
                send(Packet { header, payload });
                self.schedule(token);
                return true;
            }
            // The socket was empty, or at its end: there is another packet at most for that.
            self.schedule(token);
        }
        false
    }

    /// The guest has gone: every stream ends. What it sent before still reaches the sockets.
    pub(crate) fn reset(&mut self) {
        let tokens: Vec<u64> = self.streams.keys().copied().collect();
        for token in tokens {
            self.close(token);
        }
        self.ready.clear();
        self.refusals.clear();
    }

    /// How many sockets of ended connections have still to take their last bytes.
    pub(crate) fn lingering(&self) -> usize {
        self.lingering.len()
    }
}
