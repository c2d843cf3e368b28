//! vsock between host and guest: a vhost-user device in this process.
//!
//! [`VhostUserVsock`] is the device behind QEMU's `vhost-user-vsock-pci` (virtio 1.2 §5.10, vhost-user protocol). The
//! guest opens streams to ports of the host; each arrives at a [`VsockListener`] as an ordinary Unix socket. Streams
//! from the host to the guest do not exist: nothing here needs them.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use cofferdam_vsock::VhostUserVsock;
//! use tokio::io::AsyncReadExt;
//!
//! let device = VhostUserVsock::bind("/run/vm/vsock".as_ref(), 3)?;
//! let mut listener = device.listen(1024)?;
//! // QEMU connects to /run/vm/vsock; the guest dials CID 2, port 1024.
//! let mut stream = listener.accept().await?;
//! let mut said = String::new();
//! stream.read_to_string(&mut said).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The way of a byte
//!
//! Each stream is a socket pair: one half is the host's end, the other belongs to the device and is non-blocking. One
//! thread serves everything; it sleeps in one epoll for the guest's notifications and for the sockets (edge-triggered,
//! in an epoll of their own that the first one watches).
//!
//! * Guest to host: a packet is taken out of the transmit queue, checked, and put into its connection's buffer. The
//!   socket takes from there what it can, at once or when its reader has made room.
//! * Host to guest: bytes stay in the socket until the guest has both credit and a buffer in its receive queue. Then
//!   they are read, at most as many as fit, and go straight into that buffer. So a host that writes faster than the
//!   guest reads is held up by its own socket. Streams with something to send take turns, one packet each.
//!
//! A wake-up cannot be lost: a flag that says "the socket may have more" is taken back only by the socket itself, and
//! the guest's notifications are asked for before a queue is looked at for the last time (virtio 1.2 §2.7.10). Work is
//! done in bounded portions; the rest is put off through an event of its own, so that a guest that never pauses keeps
//! neither the sockets nor the end of the device waiting.
//!
//! # Credit
//!
//! Either side says in every header how large its buffer is and how much it has taken out of it (virtio 1.2
//! §5.10.6.3). The guest is told of room before it can have used up what it knows of. Towards the guest not only bytes
//! are counted but packets too, because Linux charges each packet its bookkeeping. That limit is this device's own, so
//! a guest that it holds up is asked how much it has read; and one that is blocked for long is asked again, whatever
//! the reason.
//!
//! # Who closes what
//!
//! | event | what follows |
//! |---|---|
//! | the guest ends its sending | the host reads what was sent, then the end |
//! | the guest ends its reading | the host's writes fail with a broken pipe; what it wrote before is dropped |
//! | the guest closes | both, and the connection is over at once: the guest is answered with a reset (§5.10.6.6) |
//! | the guest resets | the host reads what was sent, then the end; `ECONNRESET` if the guest left bytes unread |
//! | the host shuts down its sending | the guest reads what was sent, then the end; the other way goes on |
//! | the host drops its end | the guest's writes fail with a broken pipe; it reads what was sent, then the end |
//! | the hypervisor goes | as if the guest had reset every stream; [`VsockListener::accept`] fails |
//!
//! What the guest has sent is delivered in every case in which somebody is left to read it, even after the device has
//! been dropped: a thread stays behind for it until the last reader has it all or is gone.
//!
//! # What a guest can do
//!
//! Everything in the queues is the guest's, and hostile. The memory held for it is bounded (see `muxer`), so are the
//! open files; a packet that breaks the rules resets its stream, a queue that cannot be followed ends them all, and
//! neither stops the device.
//!
//! Modules: `packet` and `credit` are the protocol's numbers; `connection` is one connection without I/O, `stream` the
//! same with its socket, `muxer` all of them; `rings` moves packets through the guest's queues, `device` is what
//! vhost-user asks; `ports` has the host's listeners, `linger` what outlives its connection.

mod connection;
mod credit;
mod device;
mod linger;
mod muxer;
mod packet;
mod ports;
mod rings;
mod serve;
mod stream;

use std::{io, path::Path};

pub use crate::ports::VsockListener;
use crate::{ports::Ports, serve::Server};

/// Why the device cannot work.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The system refused something.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The vhost-user protocol could not be served.
    #[error("serving vhost-user: {0}")]
    VhostUser(String),
    /// Somebody listens there already.
    #[error("port {0:#x} is listened on already")]
    PortTaken(u32),
    /// The hypervisor has gone, and the guest with it.
    #[error("the guest has gone")]
    Ended,
}

/// A vsock device for one guest. Dropping it ends every stream; it never waits for the hypervisor or for a reader.
pub struct VhostUserVsock {
    ports: Ports,
    _server: Server,
}

impl VhostUserVsock {
    /// Serves vhost-user on a socket, for one connection of the hypervisor. The guest's context id is at least 3.
    ///
    /// # Errors
    /// When the socket cannot be made there, or the system lacks files or threads.
    pub fn bind(socket: &Path, guest_cid: u64) -> Result<Self, VsockError> {
        let ports = Ports::default();
        let server = Server::start(socket, guest_cid, ports.clone())?;
        Ok(Self {
            ports,
            _server: server,
        })
    }

    /// Listens on a port of the host.
    ///
    /// # Errors
    /// [`VsockError::PortTaken`], and [`VsockError::Ended`] once the hypervisor has gone.
    pub fn listen(&self, port: u32) -> Result<VsockListener, VsockError> {
        self.ports.listen(port)
    }
}
