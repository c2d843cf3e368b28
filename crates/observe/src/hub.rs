//! Telling many what happens, without waiting for any of them.
//!
//! A subscriber is first told the last [`HISTORY`] events, then each as it comes. Its first line says how many lines of
//! history follow. Each event has a number, so that somebody who was dropped and comes back knows what was missed.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use crate::Told;

/// Events that are kept for those who come later.
pub(crate) const HISTORY: usize = 256;
/// Events that wait for one subscriber; one who is further behind is dropped.
const BEHIND: usize = 256;
/// Subscribers at once.
const MAX_SUBSCRIBERS: usize = 32;
/// For a subscriber to take a line.
const LINE_LIMIT: Duration = Duration::from_secs(10);
/// For all subscribers to take what is left once nothing more comes.
const LAST_LIMIT: Duration = Duration::from_secs(1);
/// What a subscriber may send, in bytes: nothing it says is heard.
const MAX_RUBBISH: usize = 64 << 10;

/// The first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// How many of the next lines are of the past.
    pub(crate) history: usize,
}

/// Every further line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbered {
    /// Its place among all events of this owner, from 0.
    pub(crate) number: u64,
    #[serde(flatten)]
    pub(crate) told: Told,
}

type Line = Arc<[u8]>;

/// What was told, and who is told what comes. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next: u64,
    history: VecDeque<Line>,
    subscribers: Vec<Subscriber>,
}

struct Subscriber {
    queue: mpsc::Sender<Line>,
    writer: JoinHandle<()>,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything can fail.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody. Who is too far behind is dropped.
    pub(crate) fn tell(&self, told: Told) {
        let mut state = self.lock();
        let numbered = Numbered {
            number: state.next,
            told,
        };
        let Ok(line) = line(&numbered) else { return };
        state.next += 1;
        if state.history.len() == HISTORY {
            state.history.pop_front();
        }
        state.history.push_back(line.clone());
        state.subscribers.retain(|subscriber| {
            let told = subscriber.queue.try_send(line.clone());
            if let Err(mpsc::error::TrySendError::Full(_)) = told {
                tracing::debug!("a subscriber does not read its events, and is dropped");
                subscriber.writer.abort();
            }
            told.is_ok()
        });
    }

    /// From now on this stream is told everything.
    pub(crate) fn subscribe(&self, stream: UnixStream) {
        let mut state = self.lock();
        state
            .subscribers
            .retain(|subscriber| !subscriber.writer.is_finished());
        if state.subscribers.len() >= MAX_SUBSCRIBERS {
            tracing::warn!("there are {MAX_SUBSCRIBERS} subscribers of events: a further one is sent away");
            return;
        }
        // Under the same lock as every event: none is missed, and none told twice.
        let history: Vec<_> = state.history.iter().cloned().collect();
        let (queue, queued) = mpsc::channel(BEHIND);
        let writer = tokio::spawn(async move {
            if let Err(error) = serve(stream, history, queued).await {
                tracing::debug!(%error, "a subscriber of events");
            }
        });
        state.subscribers.push(Subscriber { queue, writer });
    }

    /// Nothing more comes: waits a moment for everybody to take what is left, and lets them go.
    pub(crate) async fn finish(&self) {
        let subscribers = std::mem::take(&mut self.lock().subscribers);
        let writers: Vec<_> = subscribers
            .into_iter()
            .map(|subscriber| subscriber.writer)
            .collect();
        let aborts: Vec<_> = writers.iter().map(JoinHandle::abort_handle).collect();
        if timeout(LAST_LIMIT, join_all(writers)).await.is_err() {
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }
}

fn line(content: &impl Serialize) -> serde_json::Result<Line> {
    let mut line = serde_json::to_vec(content)?;
    line.push(b'\n');
    Ok(line.into())
}

async fn serve(stream: UnixStream, history: Vec<Line>, queued: mpsc::Receiver<Line>) -> io::Result<()> {
    let (input, output) = stream.into_split();
    tokio::select! {
        written = write(output, history, queued) => written,
        () = gone(input) => Ok(()),
    }
}

async fn write(
    mut output: OwnedWriteHalf,
    history: Vec<Line>,
    mut queued: mpsc::Receiver<Line>,
) -> io::Result<()> {
    let greeting = Greeting {
        history: history.len(),
    };
    let first = std::iter::once(line(&greeting)?);
    for line in first.chain(history) {
        timeout(LINE_LIMIT, output.write_all(&line)).await??;
    }
    while let Some(line) = queued.recv().await {
        timeout(LINE_LIMIT, output.write_all(&line)).await??;
    }
    Ok(())
}

/// Returns when the other end has closed, or does not stop talking.
async fn gone(mut input: OwnedReadHalf) {
    let mut rubbish = [0; 1024];
    let mut heard = 0;
    while heard < MAX_RUBBISH {
        match input.read(&mut rubbish).await {
            Ok(0) | Err(_) => return,
            Ok(bytes) => heard += bytes,
        }
    }
}
