//! The thread of a device, from the wait for the hypervisor to the last reader's last byte.

use std::{
    io,
    os::{fd::AsRawFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use vhost::vhost_user::Listener;
use vhost_user_backend::{ShutdownHandle, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier},
};

use crate::{
    VsockError,
    device::{self, Device},
    muxer::Muxer,
    ports::Ports,
};

/// How far the hypervisor's connection has come, and how to end it.
enum Phase {
    /// Nobody has connected.
    Waiting,
    /// The hypervisor is served.
    Serving(ShutdownHandle),
    /// The device is being dropped: a hypervisor that connects now is not served.
    Ending,
}

/// The thread behind a device.
pub(crate) struct Server {
    socket: PathBuf,
    phase: Arc<Mutex<Phase>>,
    quit: EventNotifier,
    /// Disconnected when the hypervisor is no longer served. The thread may stay longer, for readers that are slow.
    served: Mutex<mpsc::Receiver<()>>,
}

fn failed(action: &str) -> impl FnOnce(io::Error) -> VsockError {
    let action = action.to_owned();
    move |source| VsockError::Io { action, source }
}

fn vhost_user(error: impl std::fmt::Display) -> VsockError {
    VsockError::VhostUser(error.to_string())
}

fn lock(phase: &Mutex<Phase>) -> MutexGuard<'_, Phase> {
    phase.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Binds the socket, so that the hypervisor can connect, and starts the threads.
    pub(crate) fn start(socket: &Path, guest_cid: u64, ports: Ports) -> Result<Self, VsockError> {
        // One that an earlier process left behind.
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).map_err(failed("binding the vsock device's socket"))?;
        let muxer = Muxer::new(guest_cid, ports.clone()).map_err(failed("watching the guest's streams"))?;
        let device = Arc::new(Device::new(guest_cid, muxer).map_err(failed("making the device's events"))?);
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let daemon = VhostUserDaemon::new("vsock".to_owned(), device.clone(), memory).map_err(vhost_user)?;
        let (sockets, again) = device.poll_fds();
        for handler in daemon.get_epoll_handlers() {
            for (fd, event) in [(sockets, device::SOCKETS), (again, device::AGAIN)] {
                handler
                    .register_listener(fd, EventSet::IN, u64::from(event))
                    .map_err(failed("watching the guest's streams"))?;
            }
        }
        let flags = EventFlag::NONBLOCK | EventFlag::CLOEXEC;
        let (quit_asked, quit) =
            new_event_consumer_and_notifier(flags).map_err(failed("making the device's events"))?;
        let phase = Arc::new(Mutex::new(Phase::Waiting));
        let (serving, served) = mpsc::channel();
        std::thread::Builder::new()
            .name("vsock".to_owned())
            .spawn({
                let phase = phase.clone();
                move || {
                    if let Err(error) = serve(daemon, listener, &quit_asked, &phase) {
                        tracing::error!(%error, "the hypervisor's vhost-user connection");
                    }
                    device.end();
                    ports.end();
                    drop(serving);
                    if let Err(error) = device.linger() {
                        tracing::error!(%error, "giving the host's readers the guest's last bytes");
                    }
                }
            })
            .map_err(failed("starting the vsock device's thread"))?;
        Ok(Self {
            socket: socket.to_owned(),
            phase,
            quit,
            served: Mutex::new(served),
        })
    }
}

/// Serves one hypervisor until it or the device goes. The queues' thread has ended on return.
fn serve(
    mut daemon: VhostUserDaemon<Arc<Device>>,
    listener: UnixListener,
    quit_asked: &EventConsumer,
    phase: &Mutex<Phase>,
) -> Result<(), VsockError> {
    if !is_dialled(&listener, quit_asked).map_err(failed("waiting for the hypervisor"))? {
        return Ok(());
    }
    let mut listener = Listener::from(listener);
    daemon.start(&mut listener).map_err(vhost_user)?;
    // A second hypervisor is refused rather than left to wait.
    drop(listener);
    let end = daemon.shutdown_handle();
    match (&mut *lock(phase), end) {
        (Phase::Ending, _) | (_, None) => daemon.request_shutdown(),
        (phase, Some(end)) => *phase = Phase::Serving(end),
    }
    if let Err(error) = daemon.wait() {
        // A hypervisor that is killed breaks off in the middle of anything.
        tracing::debug!(%error, "the hypervisor's vhost-user connection ended");
    }
    Ok(())
}

/// Waits for a connection. Whether there is one: if not, the device is to end.
fn is_dialled(listener: &UnixListener, quit_asked: &EventConsumer) -> io::Result<bool> {
    const QUIT: u64 = 0;
    const DIALLED: u64 = 1;

    let epoll = Epoll::new()?;
    for (fd, token) in [(quit_asked.as_raw_fd(), QUIT), (listener.as_raw_fd(), DIALLED)] {
        epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, token))?;
    }
    let mut events = [EpollEvent::default(); 2];
    loop {
        match epoll.wait(-1, &mut events) {
            Ok(count) => return Ok(events[..count].iter().all(|event| event.data() == DIALLED)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let before = std::mem::replace(&mut *lock(&self.phase), Phase::Ending);
        if let Phase::Serving(end) = before {
            end.shutdown();
        }
        // Ends the wait for the hypervisor; harmless when that is over.
        let _ = self.quit.notify();
        // Disconnected without a message, always.
        let served = self.served.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = served.recv();
        let _ = std::fs::remove_file(&self.socket);
    }
}
