//! One connection and its socket: moves bytes between the two as far as both let it.
//!
//! The socket is non-blocking and watched edge-triggered. `readable` and `writable` say what the last event allows;
//! only the socket itself, by refusing, takes that back.

use std::{
    collections::VecDeque,
    io::{ErrorKind, IoSlice, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
};

use vmm_sys_util::epoll::EventSet;

use crate::connection::Connection;

pub(crate) struct Stream {
    pub(crate) connection: Connection,
    /// This device's half of the pair; the other is the host's end of the stream.
    socket: UnixStream,
    /// The socket may have bytes, or its end.
    readable: bool,
    /// The socket may take bytes.
    writable: bool,
    /// Its write side has been shut down.
    input_closed: bool,
    /// Its read side has been shut down.
    output_closed: bool,
    /// It waits for its turn to send.
    pub(crate) queued: bool,
}

impl Stream {
    pub(crate) fn new(connection: Connection, socket: UnixStream) -> Self {
        Self {
            connection,
            socket,
            readable: true,
            writable: true,
            input_closed: false,
            output_closed: false,
            queued: false,
        }
    }

    /// Hands the guest's bytes, and its half-closes, to the socket as far as it takes them.
    pub(crate) fn write(&mut self) {
        while self.writable {
            let (first, second) = self.connection.to_socket();
            if first.is_empty() && second.is_empty() {
                break;
            }
            match (&self.socket).write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(written) => self.connection.written(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.connection.reader_gone(),
            }
        }
        if self.connection.input_is_over() && !self.input_closed {
            self.input_closed = true;
            // A reader that has gone needs no end.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        if self.connection.guest_is_deaf() {
            self.refuse_output();
        }
    }

    /// The guest reads no more: the host's writer gets a broken pipe. What it wrote before is thrown away, for a socket
    /// closed over unread bytes would give its reader an error in place of the end.
    fn refuse_output(&mut self) {
        if self.output_closed {
            return;
        }
        self.output_closed = true;
        let _ = self.socket.shutdown(Shutdown::Read);
        let mut discarded = [0; 16 << 10];
        loop {
            match (&self.socket).read(&mut discarded) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }

    /// Reads from the socket what a packet with so much room may carry into the front of `buffer`; returns how much.
    pub(crate) fn read(&mut self, buffer: &mut [u8], room: usize) -> usize {
        let limit = self.connection.may_send(room).min(buffer.len());
        if !self.readable || limit == 0 {
            return 0;
        }
        loop {
            match (&self.socket).read(&mut buffer[..limit]) {
                Ok(0) => self.connection.read_to_end(),
                Ok(length) => return length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Closed over bytes it had not read: nothing more comes of it.
                Err(_) => self.connection.read_to_end(),
            }
            self.readable = false;
            return 0;
        }
    }

    /// Takes in what has happened to the socket.
    pub(crate) fn woken(&mut self, event: EventSet) {
        let ended = EventSet::HANG_UP | EventSet::ERROR;
        if event.intersects(EventSet::IN | EventSet::READ_HANG_UP | ended) {
            self.readable = true;
        }
        if event.contains(EventSet::HANG_UP) {
            // Both ways are closed. What the host wrote before that is still read, and still sent.
            self.connection.reader_gone();
        }
        if event.intersects(EventSet::OUT | ended) {
            self.writable = true;
            self.write();
        }
    }

    /// The next control packet, if one is due.
    pub(crate) fn next_control(&mut self) -> Option<crate::packet::Header> {
        self.connection.next_control(self.readable)
    }

    /// Whether it may have a packet for the guest.
    pub(crate) fn has_something(&self) -> bool {
        self.connection.owes_control(self.readable)
            || (self.readable && self.connection.may_send(usize::MAX) > 0)
            || self.connection.is_finished()
    }

    /// Whether bytes wait that the guest has no room for.
    pub(crate) fn is_blocked(&self) -> bool {
        self.readable && self.connection.is_blocked()
    }

    /// The connection is over. What is left for the host, if anything is, and the socket to give it to; its writer is
    /// told that nobody reads.
    pub(crate) fn end(mut self) -> Option<(UnixStream, VecDeque<u8>)> {
        self.write();
        let rest = self.connection.into_rest();
        if rest.is_empty() {
            return None;
        }
        let _ = self.socket.shutdown(Shutdown::Read);
        Some((self.socket, rest))
    }
}
