//! Waiting for the exit notification of a container.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use cofferdam_protocol::message::ContainerNotification;
use tokio::sync::oneshot;

use crate::{CloseReason, connection::Shared};

/// Who waits for which container.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    by_container: HashMap<String, Vec<(u64, oneshot::Sender<ContainerNotification>)>>,
    next_token: u64,
}

impl Waiters {
    pub(crate) fn register(&mut self, container_id: &str) -> (u64, oneshot::Receiver<ContainerNotification>) {
        let (sender, receiver) = oneshot::channel();
        let token = self.next_token;
        self.next_token += 1;
        self.by_container
            .entry(container_id.to_owned())
            .or_default()
            .push((token, sender));
        (token, receiver)
    }

    /// Hands a notification to everybody who waits for it. Whether anybody did.
    pub(crate) fn notify(&mut self, notification: &ContainerNotification) -> bool {
        let Some(waiters) = self.by_container.remove(&notification.container_id) else {
            return false;
        };
        for (_, sender) in waiters {
            // A waiter that has just gone needs no notification.
            let _ = sender.send(notification.clone());
        }
        true
    }

    pub(crate) fn forget(&mut self, container_id: &str, token: u64) {
        if let Some(waiters) = self.by_container.get_mut(container_id) {
            waiters.retain(|(other, _)| *other != token);
            if waiters.is_empty() {
                self.by_container.remove(container_id);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.by_container.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.by_container.values().map(Vec::len).sum()
    }
}

/// Resolves when the container has exited and its streams are drained, or when the connection ends. It waits from
/// the moment it is made, polled or not; dropping it stops waiting.
#[derive(Debug)]
#[must_use = "dropping it stops waiting for the container"]
pub struct ContainerExit {
    shared: Arc<Shared>,
    container_id: String,
    token: u64,
    receiver: oneshot::Receiver<ContainerNotification>,
}

impl ContainerExit {
    pub(crate) fn register(shared: Arc<Shared>, container_id: &str) -> Self {
        let (token, receiver) = shared.wait_for_exit(container_id);
        Self {
            shared,
            container_id: container_id.to_owned(),
            token,
            receiver,
        }
    }
}

impl Future for ContainerExit {
    type Output = Result<ContainerNotification, CloseReason>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver)
            .poll(cx)
            .map(|received| received.map_err(|_| self.shared.close_reason()))
    }
}

impl Drop for ContainerExit {
    fn drop(&mut self) {
        self.shared.forget_exit(&self.container_id, self.token);
    }
}
