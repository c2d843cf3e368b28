//! The tasks that own the stream, and what they share with the calls.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use cofferdam_protocol::{
    MessageType,
    frame::{Decoder, Frame, MAX_GUEST_FRAME_BYTES},
    message::{CONTAINER_NOTIFICATION, ContainerNotification},
    message_type::Kind,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot, watch},
};

use crate::{CloseReason, exits::Waiters};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 16 << 10;

/// What the tasks and the calls share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    closed: watch::Sender<Option<CloseReason>>,
    nuisances: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next request. All numbers below it have been given out.
    next_id: u64,
    calls: HashMap<u64, oneshot::Sender<Frame>>,
    exits: Waiters,
}

/// A call that waits for its answer. Dropping it forgets the call; an answer that comes later goes nowhere.
pub(crate) struct PendingCall {
    shared: Arc<Shared>,
    pub(crate) id: u64,
    pub(crate) answer: oneshot::Receiver<Frame>,
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.shared.state().calls.remove(&self.id);
    }
}

impl Shared {
    pub(crate) fn new() -> Self {
        let (closed, _) = watch::channel(None);
        Self {
            state: Mutex::default(),
            closed,
            nuisances: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The lock is only held for map operations; a panic within cannot leave half a change behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers a new call; refused once the connection has ended.
    pub(crate) fn begin_call(self: &Arc<Self>) -> Result<PendingCall, CloseReason> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state();
        // Under the lock: `close` empties the map under it, so no call can slip in behind.
        if let Some(reason) = &*self.closed.borrow() {
            return Err(reason.clone());
        }
        let id = state.next_id;
        state.next_id += 1;
        state.calls.insert(id, sender);
        drop(state);
        Ok(PendingCall {
            shared: self.clone(),
            id,
            answer,
        })
    }

    pub(crate) fn wait_for_exit(
        &self,
        container_id: &str,
    ) -> (u64, oneshot::Receiver<ContainerNotification>) {
        let mut state = self.state();
        let registered = state.exits.register(container_id);
        if self.closed.borrow().is_some() {
            state.exits.clear();
        }
        registered
    }

    pub(crate) fn forget_exit(&self, container_id: &str, token: u64) {
        self.state().exits.forget(container_id, token);
    }

    /// How many calls and how many exits are waited for.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.state();
        (state.calls.len(), state.exits.len())
    }

    /// Ends the connection. Only the first reason counts.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mut state = self.state();
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(reason);
            }
            first
        });
        // Dropping the senders wakes everybody who waits; they find the reason.
        state.calls.clear();
        state.exits.clear();
    }

    /// The reason of an end that has happened.
    pub(crate) fn close_reason(&self) -> CloseReason {
        self.closed.borrow().clone().unwrap_or(CloseReason::Dropped)
    }

    /// Resolves with the reason when the connection has ended.
    pub(crate) async fn closed(&self) -> CloseReason {
        let mut closed = self.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(CloseReason::Dropped),
            Err(_) => CloseReason::Dropped,
        }
    }

    fn receive(&self, frame: Frame) {
        match frame.message_type.kind() {
            Kind::Response => self.receive_response(frame),
            Kind::Notification if frame.message_type == CONTAINER_NOTIFICATION => {
                match ContainerNotification::from_body(&frame.body) {
                    Ok(notification) => {
                        let known = self.state().exits.notify(&notification);
                        if !known {
                            let id = &notification.container_id;
                            self.nuisance(|| {
                                format!("an exit notification for container {id:?}, not waited for")
                            });
                        }
                    }
                    Err(error) => self.nuisance(|| error.to_string()),
                }
            }
            _ => self.nuisance(|| format!("an unexpected {:?}", frame.message_type)),
        }
    }

    fn receive_response(&self, frame: Frame) {
        let mut state = self.state();
        let (id, message_type) = (frame.id, frame.message_type);
        if let Some(sender) = state.calls.remove(&id) {
            // A call dropped this very moment needs no answer.
            let _ = sender.send(frame);
        } else if id < state.next_id {
            // The late answer to a call that was dropped or timed out.
            tracing::trace!(id, %message_type, "a late answer");
        } else {
            drop(state);
            self.nuisance(|| format!("a {message_type} to request {id}, which was never sent"));
        }
    }

    /// Logs what a guest should not have sent: the first, second, fourth, eighth … so that a guest cannot fill
    /// the host's log.
    fn nuisance(&self, what: impl FnOnce() -> String) {
        let count = self.nuisances.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if count.is_power_of_two() {
            tracing::warn!(count, "ignored from the guest: {}", what());
        }
    }
}

/// Reads frames until the stream or the connection ends.
pub(crate) async fn read_all(shared: Arc<Shared>, mut stream: impl AsyncRead + Unpin) {
    let reason = tokio::select! {
        reason = read_frames(&shared, &mut stream) => reason,
        reason = shared.closed() => reason,
    };
    shared.close(reason);
}

async fn read_frames(shared: &Shared, stream: &mut (impl AsyncRead + Unpin)) -> CloseReason {
    let mut decoder = Decoder::new(MAX_GUEST_FRAME_BYTES);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = match stream.read(&mut buffer).await {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return CloseReason::Io(Arc::new(error)),
        };
        if read == 0 {
            return match decoder.finish() {
                Ok(()) => CloseReason::Ended,
                Err(error) => CloseReason::Malformed(Arc::new(error)),
            };
        }
        decoder.push(&buffer[..read]);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => shared.receive(frame),
                Ok(None) => break,
                Err(error) => return CloseReason::Malformed(Arc::new(error)),
            }
        }
    }
}

/// Writes queued frames until the stream or the connection ends. It alone writes, so a dropped call never leaves
/// half a frame on the stream.
pub(crate) async fn write_all(
    shared: Arc<Shared>,
    mut stream: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Vec<u8>>,
) {
    let write = async {
        while let Some(frame) = queue.recv().await {
            if let Err(error) = write_frame(&mut stream, &frame).await {
                return CloseReason::Io(Arc::new(error));
            }
        }
        CloseReason::Dropped
    };
    let reason = tokio::select! {
        reason = write => reason,
        reason = shared.closed() => reason,
    };
    shared.close(reason);
}

async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    stream.write_all(frame).await?;
    stream.flush().await
}

/// The type of the answer that `operation` expects.
pub(crate) fn answers(operation: MessageType, answer: &Frame) -> bool {
    answer.message_type == operation.response()
}
