//! One QMP connection: commands in flight side by side, matched by id; events to every subscriber.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{
    QmpError,
    message::{self, Event, Incoming},
};

/// The event by which QEMU says why it is about to end.
const SHUTDOWN_EVENT: &str = "SHUTDOWN";
/// The longest line read. The largest true one, the list of 512 block nodes, has less than 1 MiB.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// Events a slow subscriber may fall behind by before it has to look for itself.
const EVENT_BACKLOG: usize = 1024;
/// Commands waiting to be written.
const COMMAND_BACKLOG: usize = 64;

type Answer = Result<Value, QmpError>;

/// The client's end. Cheap to share; the connection ends when it is dropped.
pub(crate) struct QmpClient {
    commands: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

struct Shared {
    next_id: AtomicU64,
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
    phase: watch::Sender<Phase>,
}

/// Where the connection stands. It only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Silent,
    Greeted,
    Closed,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    /// The reason in QEMU's last SHUTDOWN event.
    shutdown_reason: Option<String>,
    /// Set once the connection has ended.
    closed: Option<QmpError>,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing under this lock can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, why: QmpError) {
        let mut state = self.state();
        let why = state.closed.get_or_insert(why).clone();
        for (_, waiter) in state.waiting.drain() {
            // A waiter that has gone wants no answer.
            let _ = waiter.send(Err(why.clone()));
        }
        drop(state);
        self.phase.send_replace(Phase::Closed);
    }
}

impl QmpClient {
    /// Speaks QMP over `stream`: waits for the greeting, then leaves negotiation mode.
    pub(crate) async fn connect<S>(stream: S, limit: Duration) -> Result<Self, QmpError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (input, mut output) = tokio::io::split(stream);
        let shared = Arc::new(Shared {
            next_id: AtomicU64::new(1),
            state: Mutex::default(),
            events: broadcast::channel(EVENT_BACKLOG).0,
            phase: watch::channel(Phase::Silent).0,
        });
        let (commands, mut queue) = mpsc::channel::<Vec<u8>>(COMMAND_BACKLOG);
        let reader = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let why = read_lines(input, &shared).await;
                shared.close(QmpError::Closed(why));
            }
        });
        let writer = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                // Its half of the stream goes with the connection, so that QEMU sees the end too.
                let mut phase = shared.phase.subscribe();
                let closed = async move { drop(phase.wait_for(|phase| *phase == Phase::Closed).await) };
                let written = async {
                    while let Some(line) = queue.recv().await {
                        output.write_all(&line).await?;
                    }
                    Ok::<_, std::io::Error>(())
                };
                tokio::select! {
                    () = closed => {}
                    written = written => if let Err(error) = written {
                        shared.close(error.into());
                    },
                }
            }
        });
        let client = Self {
            commands,
            shared,
            reader,
            writer,
        };
        tokio::time::timeout(limit, client.reached(Phase::Greeted))
            .await
            .map_err(|_| timed_out(limit))?;
        client.execute("qmp_capabilities", Value::Null, limit).await?;
        Ok(client)
    }

    /// Performs one command. Others may be under way; dropping the future forgets the answer, not the command.
    pub(crate) async fn execute(&self, name: &str, arguments: Value, limit: Duration) -> Answer {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.shared.state();
            if let Some(why) = &state.closed {
                return Err(why.clone());
            }
            state.waiting.insert(id, sender);
        }
        let _forget = Forget {
            shared: &self.shared,
            id,
        };
        let line = message::command(name, &arguments, id);
        tracing::trace!(id, name, "QMP command");
        let exchange = async {
            if self.commands.send(line).await.is_err() {
                return Err(self.why_closed());
            }
            receiver.await.unwrap_or_else(|_| Err(self.why_closed()))
        };
        tokio::time::timeout(limit, exchange)
            .await
            .unwrap_or_else(|_| Err(timed_out(limit)))
    }

    /// Every event from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Resolves when the connection has ended, with the reason.
    pub(crate) async fn closed(&self) -> QmpError {
        self.reached(Phase::Closed).await;
        self.why_closed()
    }

    /// Why QEMU said that it would end, in its own word: `guest-shutdown`, `guest-reset`, `host-qmp-quit`, …
    pub(crate) fn shutdown_reason(&self) -> Option<String> {
        self.shared.state().shutdown_reason.clone()
    }

    async fn reached(&self, wanted: Phase) {
        let mut phase = self.shared.phase.subscribe();
        // It fails only if the sender is gone, and this client holds it.
        let _ = phase.wait_for(|phase| *phase >= wanted).await;
    }

    fn why_closed(&self) -> QmpError {
        self.shared
            .state()
            .closed
            .clone()
            .unwrap_or(QmpError::Closed(None))
    }
}

impl Drop for QmpClient {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

/// Takes a waiter off the list when its caller leaves early.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.state().waiting.remove(&self.id);
    }
}

/// Reads until the connection ends; the reason if there is one beyond "it ended".
async fn read_lines(input: impl AsyncRead + Unpin, shared: &Shared) -> Option<String> {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut input)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
            .await
        {
            Ok(0) => return None,
            Ok(_) if line.last() == Some(&b'\n') => {}
            Ok(length) if length as u64 == MAX_LINE_BYTES => {
                return Some(format!("a line of more than {MAX_LINE_BYTES} bytes"));
            }
            Ok(_) => return Some("it ended in the middle of a line".to_owned()),
            Err(error) => return Some(error.to_string()),
        }
        // One large answer shall not hold its memory for ever.
        let parsed = message::parse(&line);
        if line.capacity() > 1 << 20 {
            line = Vec::new();
        }
        match parsed {
            Ok(Incoming::Greeting) => {
                shared.phase.send_if_modified(|phase| {
                    let first = *phase == Phase::Silent;
                    if first {
                        *phase = Phase::Greeted;
                    }
                    first
                });
            }
            Ok(Incoming::Answer { id, result }) => {
                let waiter = shared.state().waiting.remove(&id);
                if let Some(waiter) = waiter {
                    // A caller that has gone wants no answer.
                    let _ = waiter.send(result);
                }
            }
            Ok(Incoming::Event(event)) => {
                tracing::debug!(name = event.name, data = ?event.data, "QMP event");
                if event.name == SHUTDOWN_EVENT {
                    shared.state().shutdown_reason = Some(event.text("reason").to_owned());
                }
                // Nobody may be listening.
                let _ = shared.events.send(event);
            }
            Ok(Incoming::Other) => {}
            Err(problem) => return Some(problem),
        }
    }
}

fn timed_out(limit: Duration) -> QmpError {
    QmpError::TimedOut {
        limit_ms: limit.as_millis().try_into().unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::DuplexStream;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);
    const GREETING: &[u8] = b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

    /// The far end, after the handshake.
    async fn connected() -> (QmpClient, BufReader<DuplexStream>) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let mut far = BufReader::new(far);
        let (client, ()) = tokio::join!(QmpClient::connect(near, LIMIT), async {
            far.write_all(GREETING).await.expect("write");
            assert_eq!(next(&mut far).await["execute"], "qmp_capabilities");
            far.write_all(b"{\"return\": {}, \"id\": 1}\r\n")
                .await
                .expect("write");
        });
        (client.expect("connected"), far)
    }

    async fn next(far: &mut BufReader<DuplexStream>) -> Value {
        let mut line = String::new();
        far.read_line(&mut line).await.expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    #[tokio::test]
    async fn answers_in_another_order_reach_their_own_callers() {
        let (client, mut far) = connected().await;
        let first = client.execute("a", Value::Null, LIMIT);
        let second = client.execute("b", Value::Null, LIMIT);
        let server = async {
            let (a, b) = (next(&mut far).await, next(&mut far).await);
            for request in [b, a] {
                let answer = json!({ "return": request["execute"], "id": request["id"] });
                far.write_all(format!("{answer}\n").as_bytes())
                    .await
                    .expect("write");
            }
        };
        let (first, second, ()) = tokio::join!(first, second, server);
        assert_eq!((first.expect("a"), second.expect("b")), (json!("a"), json!("b")));
    }

    #[tokio::test]
    async fn death_in_mid_command_is_told_to_all_who_wait_and_to_all_who_come_later() {
        let (client, mut far) = connected().await;
        let waiting = client.execute("a", Value::Null, LIMIT);
        let (result, ()) = tokio::join!(waiting, async {
            next(&mut far).await;
            drop(far);
        });
        assert!(matches!(result, Err(QmpError::Closed(None))), "{result:?}");
        assert!(matches!(
            client.execute("b", Value::Null, LIMIT).await,
            Err(QmpError::Closed(_))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_with_the_limit() {
        let (client, _far) = connected().await;
        let result = client.execute("a", Value::Null, Duration::from_millis(300)).await;
        assert!(matches!(result, Err(QmpError::TimedOut { limit_ms: 300 })));
        assert!(client.shared.state().waiting.is_empty(), "nobody waits any more");
    }

    #[tokio::test]
    async fn endless_line_is_cut_off() {
        let (client, mut far) = connected().await;
        let waiting = client.execute("a", Value::Null, LIMIT);
        let (result, ()) = tokio::join!(waiting, async {
            let chunk = vec![b'x'; 1 << 16];
            while far.write_all(&chunk).await.is_ok() {}
        });
        let Err(QmpError::Closed(Some(why))) = result else {
            panic!("{result:?}")
        };
        assert!(why.contains("more than"), "{why}");
    }

    #[tokio::test]
    async fn rubbish_instead_of_a_greeting_is_an_error_at_once() {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(b"SSH-2.0-OpenSSH\r\n").await.expect("write");
        let result = QmpClient::connect(near, LIMIT).await;
        assert!(matches!(result, Err(QmpError::Closed(Some(_)))));
    }

    #[tokio::test]
    async fn events_reach_every_subscriber() {
        let (client, mut far) = connected().await;
        let (mut one, mut two) = (client.events(), client.events());
        far.write_all(b"{\"event\": \"STOP\"}\n").await.expect("write");
        assert_eq!(one.recv().await.expect("event").name, "STOP");
        assert_eq!(two.recv().await.expect("event").name, "STOP");
    }
}
