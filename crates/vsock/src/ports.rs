//! The host's ports: who listens where, and the streams that wait to be accepted.

use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixStream as StdStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{net::UnixStream, sync::mpsc};

use crate::VsockError;

/// Streams of one port that wait to be accepted; further ones are refused. A guest must not be able to fill the
/// host's table of open files through a listener that is slow.
const BACKLOG: usize = 1024;

/// All ports of one device.
#[derive(Clone, Default)]
pub(crate) struct Ports(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    /// The hypervisor has gone: nobody will ever dial again.
    ended: bool,
    listeners: HashMap<u32, mpsc::Sender<StdStream>>,
}

/// Streams the guest opens to one port. Dropping it refuses further ones, and ends those not accepted.
pub struct VsockListener {
    port: u32,
    ports: Ports,
    sender: mpsc::WeakSender<StdStream>,
    streams: mpsc::Receiver<StdStream>,
}

impl Ports {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a port.
    pub(crate) fn listen(&self, port: u32) -> Result<VsockListener, VsockError> {
        let mut open = self.open();
        if open.ended {
            return Err(VsockError::Ended);
        }
        if open
            .listeners
            .get(&port)
            .is_some_and(|sender| !sender.is_closed())
        {
            return Err(VsockError::PortTaken(port));
        }
        let (sender, streams) = mpsc::channel(BACKLOG);
        let listener = VsockListener {
            port,
            ports: self.clone(),
            sender: sender.downgrade(),
            streams,
        };
        open.listeners.insert(port, sender);
        Ok(listener)
    }

    /// A place in a port's queue, if somebody listens there and has room.
    pub(crate) fn place(&self, port: u32) -> Option<mpsc::OwnedPermit<StdStream>> {
        let sender = self.open().listeners.get(&port)?.clone();
        sender.try_reserve_owned().ok()
    }

    /// Ends every listener, once the streams in its queue have been accepted.
    pub(crate) fn end(&self) {
        let mut open = self.open();
        open.ended = true;
        open.listeners.clear();
    }
}

impl VsockListener {
    /// The next stream. Cancel-safe.
    ///
    /// # Errors
    /// `NotConnected` once the hypervisor has gone, for the guest cannot dial any more.
    pub async fn accept(&mut self) -> io::Result<UnixStream> {
        let stream = self.streams.recv().await.ok_or(io::ErrorKind::NotConnected)?;
        UnixStream::from_std(stream)
    }

    /// A stream that waits, outside of any task.
    #[cfg(test)]
    pub(crate) fn try_accept(&mut self) -> Option<StdStream> {
        self.streams.try_recv().ok()
    }
}

impl Drop for VsockListener {
    fn drop(&mut self) {
        // Only its own registration: the port may be somebody else's by now.
        let mut open = self.ports.open();
        if let Some(sender) = self.sender.upgrade()
            && open
                .listeners
                .get(&self.port)
                .is_some_and(|registered| registered.same_channel(&sender))
        {
            open.listeners.remove(&self.port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dial(ports: &Ports, port: u32) -> Option<StdStream> {
        let (theirs, ours) = StdStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        ports.place(port)?.send(theirs);
        Some(ours)
    }

    #[tokio::test]
    async fn a_port_is_taken_until_its_listener_is_dropped() {
        let ports = Ports::default();
        assert!(dial(&ports, 7).is_none(), "nobody listens");
        let mut first = ports.listen(7).unwrap();
        assert!(matches!(ports.listen(7), Err(VsockError::PortTaken(7))));
        let _guest = dial(&ports, 7).unwrap();
        first.accept().await.unwrap();
        drop(first);
        assert!(dial(&ports, 7).is_none());
        let mut second = ports.listen(7).unwrap();
        let _guest = dial(&ports, 7).unwrap();
        second.accept().await.unwrap();
    }

    #[tokio::test]
    async fn an_old_listener_that_goes_late_leaves_the_new_one_alone() {
        let ports = Ports::default();
        let mut old = ports.listen(7).unwrap();
        old.streams.close();
        let mut new = ports.listen(7).unwrap();
        drop(old);
        let _guest = dial(&ports, 7).unwrap();
        new.accept().await.unwrap();
    }

    #[test]
    fn streams_nobody_accepts_are_bounded() {
        let ports = Ports::default();
        let _listener = ports.listen(7).unwrap();
        let (waiting, _) = StdStream::pair().unwrap();
        let mut permits = Vec::new();
        for _ in 0..BACKLOG {
            permits.push(ports.place(7).unwrap());
        }
        assert!(ports.place(7).is_none());
        permits.pop().unwrap().send(waiting);
        assert!(ports.place(7).is_none());
    }

    #[tokio::test]
    async fn after_the_hypervisor_has_gone_what_waits_is_accepted_and_nothing_waits_for_ever() {
        let ports = Ports::default();
        let mut listener = ports.listen(7).unwrap();
        let _guest = dial(&ports, 7).unwrap();
        ports.end();
        listener.accept().await.unwrap();
        let error = listener.accept().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        assert!(matches!(ports.listen(8), Err(VsockError::Ended)));
    }
}
