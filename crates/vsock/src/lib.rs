//! vsock between host and guest: a vhost-user device in this process.
//!
//! [`VhostUserVsock`] is the device behind QEMU's `vhost-user-vsock-pci`. The guest opens streams to ports of the host;
//! each arrives at a [`VsockListener`] as an ordinary Unix socket.

mod connection;
mod credit;
mod device;
mod muxer;
mod packet;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use tokio::{net::UnixStream, sync::mpsc};
use vhost::vhost_user::Listener;
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use crate::{device::Device, muxer::Listeners};

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
}

/// Ends the hypervisor's connection; there from the moment it has connected.
type Shutdown = Arc<Mutex<Option<Box<dyn Fn() + Send>>>>;

/// A vsock device for one guest.
pub struct VhostUserVsock {
    socket: PathBuf,
    listeners: Listeners,
    device: Arc<Device>,
    shutdown: Shutdown,
    thread: Option<JoinHandle<()>>,
}

/// Streams the guest opens to one port. Dropping it refuses further ones.
pub struct VsockListener {
    port: u32,
    listeners: Listeners,
    streams: mpsc::UnboundedReceiver<std::os::unix::net::UnixStream>,
}

impl VhostUserVsock {
    /// Serves vhost-user on a socket, for one connection of the hypervisor.
    pub fn bind(socket: &Path, guest_cid: u64) -> Result<Self, VsockError> {
        let failed = |action: &str, source| VsockError::Io {
            action: action.to_owned(),
            source,
        };
        let listeners = Listeners::default();
        let muxer =
            muxer::Muxer::new(guest_cid, listeners.clone()).map_err(|e| failed("making an epoll", e))?;
        let device = Arc::new(Device::new(guest_cid, muxer).map_err(|e| failed("making an event", e))?);
        let mut listener =
            Listener::new(socket, true).map_err(|error| VsockError::VhostUser(error.to_string()))?;
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let mut daemon = VhostUserDaemon::new("vsock".to_owned(), device.clone(), memory)
            .map_err(|error| VsockError::VhostUser(error.to_string()))?;
        for handler in daemon.get_epoll_handlers() {
            handler
                .register_listener(device.poll_fd(), EventSet::IN, u64::from(device::SOCKETS))
                .map_err(|e| failed("watching the streams", e))?;
        }
        let shutdown = Shutdown::default();
        let thread = std::thread::Builder::new()
            .name("vsock".to_owned())
            .spawn({
                let (shutdown, device) = (shutdown.clone(), device.clone());
                move || {
                    if let Err(error) = daemon.start(&mut listener) {
                        tracing::error!(%error, "the hypervisor's vhost-user connection");
                        return;
                    }
                    if let Some(handle) = daemon.shutdown_handle() {
                        let end = Box::new(move || handle.shutdown());
                        *shutdown.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
                    }
                    if let Err(error) = daemon.wait() {
                        tracing::debug!(%error, "the hypervisor's vhost-user connection ended");
                    }
                    for handler in daemon.get_epoll_handlers() {
                        handler.send_exit_event();
                    }
                    device.reset_streams();
                }
            })
            .map_err(|e| failed("starting a thread", e))?;
        Ok(Self {
            socket: socket.to_owned(),
            listeners,
            device,
            shutdown,
            thread: Some(thread),
        })
    }

    /// Listens on a port of the host.
    pub fn listen(&self, port: u32) -> Result<VsockListener, VsockError> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.get(&port).is_some_and(|sender| !sender.is_closed()) {
            return Err(VsockError::PortTaken(port));
        }
        let (sender, streams) = mpsc::unbounded_channel();
        listeners.insert(port, sender);
        Ok(VsockListener {
            port,
            listeners: self.listeners.clone(),
            streams,
        })
    }
}

impl VsockListener {
    /// The next stream. Cancel-safe.
    pub async fn accept(&mut self) -> io::Result<UnixStream> {
        let stream = self.streams.recv().await.ok_or(io::ErrorKind::NotConnected)?;
        UnixStream::from_std(stream)
    }
}

impl Drop for VsockListener {
    fn drop(&mut self) {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.port);
    }
}

impl Drop for VhostUserVsock {
    fn drop(&mut self) {
        if let Some(end) = self
            .shutdown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            end();
        } else {
            // Nobody has connected: a connection of our own ends the wait for one.
            drop(std::os::unix::net::UnixStream::connect(&self.socket));
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.device.reset_streams();
        let _ = std::fs::remove_file(&self.socket);
    }
}
