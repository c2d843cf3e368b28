//! The bridge: frames in, a thread for each request, frames out in the order requests finish
//! (GCS bridge protocol §2, §9).

mod dispatch;
mod properties;
mod reply;
mod settings;

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use cofferdam_protocol::{
    MessageType,
    frame::{self, MAX_GUEST_FRAME_BYTES, MAX_HOST_FRAME_BYTES, read_frame},
    message::{self, ContainerNotification},
    message_type::Kind,
};

use crate::agent::Agent;

/// Most requests served at once; further ones wait to be read.
const MAX_REQUESTS: usize = 64;
/// Stack of a request's thread: the deepest document the JSON parser takes must fit. Untouched pages cost nothing.
const REQUEST_STACK_BYTES: usize = 2 << 20;

/// One connection to a host, from its first byte to its last.
pub(crate) struct Session {
    /// One writer at a time: frames are never interleaved.
    writer: Mutex<File>,
    /// Whether the protocol version has been agreed.
    negotiated: AtomicBool,
}

impl Session {
    fn write(&self, message_type: MessageType, id: u64, body: &[u8]) -> io::Result<()> {
        let bytes = frame::encode(message_type, id, body, MAX_GUEST_FRAME_BYTES).map_err(io::Error::other)?;
        self.writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&bytes)
    }

    /// Sends a container notification.
    pub(crate) fn notify(&self, notification: &ContainerNotification) -> io::Result<()> {
        self.write(message::CONTAINER_NOTIFICATION, 0, &notification.to_body())
    }
}

/// Serves one connection until it ends. Requests still running then finish unheard.
pub(crate) fn serve(agent: &Arc<Agent>, reader: OwnedFd, writer: OwnedFd) {
    let session = Arc::new(Session {
        writer: Mutex::new(File::from(writer)),
        negotiated: AtomicBool::new(false),
    });
    let why = read_requests(agent, &session, &mut BufReader::new(File::from(reader)));
    agent.outbox.detach();
    match why {
        Ok(()) => tracing::info!("the host closed the bridge"),
        Err(error) => tracing::error!(%error, "the bridge is closed"),
    }
}

fn read_requests(
    agent: &Arc<Agent>,
    session: &Arc<Session>,
    stream: &mut impl Read,
) -> Result<(), frame::FrameError> {
    let permits = Arc::new(Permits::default());
    while let Some(frame) = read_frame(stream, MAX_HOST_FRAME_BYTES)? {
        if frame.message_type.kind() != Kind::Request {
            tracing::warn!(request = %frame.message_type, "the host sent something that is no request");
            continue;
        }
        let reply = reply::Reply::new(Arc::clone(session), frame.message_type, frame.id);
        let negotiated = session.negotiated.load(Ordering::Acquire);
        // Quick ones, and those whose order matters, are served here.
        if !negotiated || dispatch::is_immediate(frame.message_type) {
            dispatch::serve(agent, session, frame, reply);
            continue;
        }
        let permit = Permits::take(&permits);
        let (agent, session) = (Arc::clone(agent), Arc::clone(session));
        let spawned = thread::Builder::new()
            .name("request".into())
            .stack_size(REQUEST_STACK_BYTES)
            .spawn(move || {
                let _permit = permit;
                dispatch::serve(&agent, &session, frame, reply);
            });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for a request");
        }
    }
    Ok(())
}

/// Bounds the requests served at once.
#[derive(Default)]
struct Permits {
    taken: Mutex<usize>,
    returned: Condvar,
}

struct Permit(Arc<Permits>);

impl Permits {
    fn take(permits: &Arc<Self>) -> Permit {
        let taken = permits.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = permits
            .returned
            .wait_while(taken, |taken| *taken >= MAX_REQUESTS)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Permit(Arc::clone(permits))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.returned.notify_one();
    }
}
