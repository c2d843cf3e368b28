//! A pod's events, served to whoever connects.

use std::{io, path::Path, sync::Arc, time::Duration};

use cofferdam_owner::control;
use cofferdam_pod::Event;
use tokio::{
    net::UnixListener,
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    task::JoinHandle,
};

use crate::{Told, hub::Hub};

/// The socket, in an owner's directory.
pub(crate) const SOCKET: &str = "events.sock";
/// After a connection could not be accepted: descriptors come back as others leave.
const PAUSE: Duration = Duration::from_millis(100);

/// Tells a pod's events until it is dropped.
#[must_use = "events are told until it is dropped"]
pub struct Events {
    hub: Hub,
    last: Arc<Notify>,
    telling: JoinHandle<()>,
    accepting: JoinHandle<()>,
}

impl Events {
    /// Opens the socket in the owner's directory, and tells what arrives.
    ///
    /// # Errors
    /// The system's.
    pub fn serve(dir: &Path, events: UnboundedReceiver<Event>) -> io::Result<Self> {
        Self::start(dir, events, None)
    }

    /// The same, for an owner that tells them to somebody else too: they arrive there after they were told here.
    ///
    /// # Errors
    /// The system's.
    pub fn pass_on(
        dir: &Path,
        events: UnboundedReceiver<Event>,
    ) -> io::Result<(Self, UnboundedReceiver<Event>)> {
        let (passed_on, received) = unbounded_channel();
        Ok((Self::start(dir, events, Some(passed_on))?, received))
    }

    fn start(
        dir: &Path,
        events: UnboundedReceiver<Event>,
        passed_on: Option<UnboundedSender<Event>>,
    ) -> io::Result<Self> {
        let listener = control::bind(dir, SOCKET)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let (hub, last) = (Hub::default(), Arc::new(Notify::new()));
        Ok(Self {
            telling: tokio::spawn(tell(events, hub.clone(), passed_on, last.clone())),
            accepting: tokio::spawn(accept(listener, hub.clone())),
            hub,
            last,
        })
    }

    /// Tells what has happened so far, and waits a moment for those who listen to take it.
    pub async fn finish(mut self) {
        self.last.notify_one();
        // It panics never, and is cancelled by nobody else.
        let _ = (&mut self.telling).await;
        self.hub.finish().await;
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.telling.abort();
        self.accepting.abort();
    }
}

async fn tell(
    mut events: UnboundedReceiver<Event>,
    hub: Hub,
    passed_on: Option<UnboundedSender<Event>>,
    last: Arc<Notify>,
) {
    let mut ending = std::pin::pin!(last.notified());
    let mut goes_on = true;
    loop {
        let event = tokio::select! {
            biased;
            () = &mut ending, if goes_on => {
                goes_on = false;
                // What was sent before is received still.
                events.close();
                continue;
            }
            event = events.recv() => event,
        };
        let Some(event) = event else { return };
        if let Some(told) = Told::of(event.clone()) {
            hub.tell(told);
        }
        if let Some(passed_on) = &passed_on {
            // Whoever does not want them any more is not to be told.
            let _ = passed_on.send(event);
        }
    }
}

async fn accept(listener: UnixListener, hub: Hub) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if control::is_welcome(&stream) => hub.subscribe(stream),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting a subscriber of events");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
