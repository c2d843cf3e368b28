//! One stream of a guest over the driver: enough of the protocol to dial, send, receive and close.

use std::time::{Duration, Instant};

use crate::driver::{Driver, HEADER_BYTES, LIMIT};

pub(crate) const GUEST_CID: u64 = 3;
pub(crate) const PORT: u32 = 1024;
const BUFFER_BYTES: u32 = 64 << 10;

pub(crate) const REQUEST: u16 = 1;
pub(crate) const RESPONSE: u16 = 2;
pub(crate) const RESET: u16 = 3;
pub(crate) const SHUTDOWN: u16 = 4;
pub(crate) const DATA: u16 = 5;
pub(crate) const CREDIT_UPDATE: u16 = 6;
pub(crate) const CREDIT_REQUEST: u16 = 7;

pub(crate) struct Guest {
    pub(crate) driver: Driver,
    pub(crate) port: u32,
    sent: u32,
    fwd_cnt: u32,
    told: u32,
    peer_buf_alloc: u32,
    peer_fwd_cnt: u32,
    pub(crate) received: Vec<u8>,
    pub(crate) shutdown: u32,
    pub(crate) reset: bool,
    connected: bool,
}

/// A packet's bytes.
pub(crate) fn packet(
    port: u32,
    op: u16,
    flags: u32,
    length: u32,
    (buf_alloc, fwd_cnt): (u32, u32),
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend(GUEST_CID.to_le_bytes());
    bytes.extend(2_u64.to_le_bytes());
    bytes.extend(port.to_le_bytes());
    bytes.extend(PORT.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(op.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(buf_alloc.to_le_bytes());
    bytes.extend(fwd_cnt.to_le_bytes());
    bytes.extend(payload);
    bytes
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Guest {
    /// Dials [`PORT`] and waits for the answer.
    pub(crate) fn dial(driver: Driver, port: u32) -> Self {
        let mut guest = Self::on(driver, port);
        guest.say(REQUEST, 0);
        guest.until("a response", |guest| guest.connected);
        guest
    }

    /// A socket that has not dialled.
    pub(crate) fn on(driver: Driver, port: u32) -> Self {
        Self {
            driver,
            port,
            sent: 0,
            fwd_cnt: 0,
            told: 0,
            peer_buf_alloc: 0,
            peer_fwd_cnt: 0,
            received: Vec::new(),
            shutdown: 0,
            reset: false,
            connected: false,
        }
    }

    pub(crate) fn say(&mut self, op: u16, flags: u32) {
        self.told = self.fwd_cnt;
        let packet = packet(self.port, op, flags, 0, (BUFFER_BYTES, self.fwd_cnt), &[]);
        self.driver.transmit(&packet);
    }

    pub(crate) fn credit(&self) -> usize {
        self.peer_buf_alloc
            .saturating_sub(self.sent.wrapping_sub(self.peer_fwd_cnt)) as usize
    }

    /// Sends what credit allows of it, in one packet; returns how much.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> usize {
        let length = bytes.len().min(self.credit()).min(64 << 10);
        if length > 0 {
            self.sent = self.sent.wrapping_add(length as u32);
            self.told = self.fwd_cnt;
            let credit = (BUFFER_BYTES, self.fwd_cnt);
            let packet = packet(self.port, DATA, 0, length as u32, credit, &bytes[..length]);
            self.driver.transmit(&packet);
        }
        length
    }

    /// Sends as much as the device takes before it stops giving credit.
    pub(crate) fn send_until_full(&mut self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        loop {
            while let now @ 1.. = self.send(&bytes[sent..]) {
                sent += now;
            }
            if !self.take_one(Duration::from_millis(200)) {
                return sent;
            }
        }
    }

    /// Takes a packet of the device, if one comes within the limit.
    pub(crate) fn take_one(&mut self, limit: Duration) -> bool {
        let Some(bytes) = self.driver.receive(limit) else {
            return false;
        };
        assert!(bytes.len() >= HEADER_BYTES);
        assert_eq!(word(&bytes, 24) as usize, bytes.len() - HEADER_BYTES);
        if word(&bytes, 20) != self.port {
            return true;
        }
        let op = u16::from_le_bytes([bytes[30], bytes[31]]);
        (self.peer_buf_alloc, self.peer_fwd_cnt) = match op {
            RESET => (0, 0),
            _ => (word(&bytes, 36), word(&bytes, 40)),
        };
        match op {
            RESPONSE => self.connected = true,
            RESET => self.reset = true,
            SHUTDOWN => self.shutdown |= word(&bytes, 32),
            DATA => {
                self.received.extend(&bytes[HEADER_BYTES..]);
                self.fwd_cnt = self.fwd_cnt.wrapping_add((bytes.len() - HEADER_BYTES) as u32);
                if self.fwd_cnt.wrapping_sub(self.told) > BUFFER_BYTES / 2 {
                    self.say(CREDIT_UPDATE, 0);
                }
            }
            CREDIT_UPDATE => {}
            CREDIT_REQUEST => self.say(CREDIT_UPDATE, 0),
            other => panic!("operation {other} of the device"),
        }
        true
    }

    /// Takes packets until something holds.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = Instant::now() + LIMIT;
        while !holds(self) {
            self.take_one(Duration::from_secs(1));
            assert!(Instant::now() < until, "{what}: not within {LIMIT:?}");
        }
    }
}
