//! The socket, and one request after the other on it.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, recv, sendto,
    socket_with, sockopt,
};

use crate::{
    error::{NetlinkError, Result},
    message::{ACKNOWLEDGE, DONE, DUMP, ERROR, Message, i32_at, messages},
};

/// The kernel answers while the request is sent. This only guards against waiting for ever.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The kernel fills datagrams of a dump up to 32 KiB.
const DATAGRAM_BYTES: usize = 64 << 10;

/// A socket to the kernel's routing, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens one. It stays in the calling thread's network namespace, whichever thread uses it.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> Result<Self> {
        let open = || -> io::Result<OwnedFd> {
            // Protocol 0 of netlink is routing.
            let socket = socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                None,
            )?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_LIMIT))?;
            Ok(socket)
        };
        match open() {
            Ok(socket) => Ok(Self { socket, sequence: 0 }),
            Err(source) => Err(NetlinkError::Io {
                action: "opening a routing socket".to_owned(),
                source,
            }),
        }
    }

    /// Sends a request and waits for the kernel's word on it.
    pub(crate) fn perform(
        &mut self,
        action: &str,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        rest: impl FnOnce(Message) -> Message,
    ) -> Result<()> {
        let message = rest(Message::new(kind, flags | ACKNOWLEDGE, fixed));
        self.exchange(action, message, |_, _| Some(()))
    }

    /// Asks for everything of a kind; `each` gets the bodies, and says `None` of one it cannot read.
    pub(crate) fn dump(
        &mut self,
        action: &str,
        kind: u16,
        fixed: &[u8],
        each: impl FnMut(u16, &[u8]) -> Option<()>,
    ) -> Result<()> {
        self.exchange(action, Message::new(kind, DUMP, fixed), each)
    }

    fn exchange(
        &mut self,
        action: &str,
        message: Message,
        mut each: impl FnMut(u16, &[u8]) -> Option<()>,
    ) -> Result<()> {
        let failed = |source: io::Error| NetlinkError::Io {
            action: action.to_owned(),
            source,
        };
        let malformed = || NetlinkError::Malformed(action.to_owned());
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.finish(self.sequence);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &bytes, SendFlags::empty(), &kernel).map_err(|error| failed(error.into()))?;
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            let (length, _) = recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())
                .map_err(|error| failed(error.into()))?;
            for message in messages(buffer.get(..length).ok_or_else(malformed)?) {
                let message = message.ok_or_else(malformed)?;
                if message.sequence != self.sequence {
                    // The answer to an earlier request that was given up.
                    continue;
                }
                match message.kind {
                    DONE => return Ok(()),
                    ERROR => {
                        return match i32_at(message.body, 0).ok_or_else(malformed)? {
                            0 => Ok(()),
                            number => Err(failed(io::Error::from_raw_os_error(number.wrapping_neg()))),
                        };
                    }
                    kind => each(kind, message.body).ok_or_else(malformed)?,
                }
            }
        }
    }
}
