//! What the guest sent before it went: bytes that slow readers of the host have still to take.

use std::{
    collections::{HashMap, VecDeque},
    io::{ErrorKind, IoSlice, Write},
    os::unix::net::UnixStream,
};

/// Sockets of connections that are over, each with the bytes left for it. One goes when its reader has them all, or has
/// gone itself; its closing is the reader's end of file.
#[derive(Default)]
pub(crate) struct Lingering(HashMap<u64, (UnixStream, VecDeque<u8>)>);

impl Lingering {
    /// Takes a socket that is full now, watched under this token.
    pub(crate) fn push(&mut self, token: u64, socket: UnixStream, rest: VecDeque<u8>) {
        self.0.insert(token, (socket, rest));
        self.woken(token);
    }

    /// The socket of this token may take more. Whether it is one of these.
    pub(crate) fn woken(&mut self, token: u64) -> bool {
        let Some((socket, rest)) = self.0.get_mut(&token) else {
            return false;
        };
        while !rest.is_empty() {
            let (first, second) = rest.as_slices();
            match socket.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(written) => drop(rest.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.0.remove(&token);
        true
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
