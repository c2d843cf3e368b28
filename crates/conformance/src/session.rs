//! One connection to an agent. Every frame that comes is held to the rules that hold for all frames (§2 to §4):
//! whichever case is running, a frame that breaks one fails it.

use std::{
    collections::{HashMap, VecDeque},
    io::{Read, Write},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    case::{Outcome, Stop, ensure, failed},
    frame::{self, Frame, Incoming, word},
    reply::Reply,
};

/// Longest activity id an agent must echo: a GUID has 36 letters.
const ACTIVITY_BYTES: usize = 256;

/// A connection.
pub struct Session {
    outgoing: Option<Sender<Vec<u8>>>,
    incoming: Receiver<Incoming>,
    outstanding: HashMap<u64, VecDeque<Asked>>,
    answers: HashMap<u64, VecDeque<Reply>>,
    notifications: Vec<Value>,
    /// Containers for which a notification may still come.
    owed: Owed,
    closed: Option<String>,
    next_id: u64,
    limit: Duration,
}

/// For which containers an agent owes a notification, over all connections of a run: an agent may hand one in late.
#[derive(Debug, Clone, Default)]
pub struct Owed(std::sync::Arc<std::sync::Mutex<std::collections::HashSet<String>>>);

impl Owed {
    /// From now on one notification for `container` is right.
    pub fn add(&self, container: &str) {
        self.lock().insert(container.to_owned());
    }

    /// No notification for `container` is right.
    pub fn forgive(&self, container: &str) {
        self.lock().remove(container);
    }

    fn settle(&self, container: &str) -> bool {
        self.lock().remove(container)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, std::collections::HashSet<String>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A request without its answer.
#[derive(Debug)]
struct Asked {
    word: u32,
    activity: Option<String>,
}

impl Session {
    /// Talks over `reader` and `writer`. `half_close` is called when this side has nothing more to say.
    #[must_use]
    pub fn new(
        mut reader: impl Read + Send + 'static,
        mut writer: impl Write + Send + 'static,
        half_close: impl FnOnce() + Send + 'static,
        owed: Owed,
        limit: Duration,
    ) -> Self {
        let (outgoing, to_write) = mpsc::channel::<Vec<u8>>();
        // An agent that does not read must not hold the suite.
        thread::spawn(move || {
            for bytes in to_write {
                if writer.write_all(&bytes).and_then(|()| writer.flush()).is_err() {
                    break;
                }
            }
            drop(writer);
            half_close();
        });
        let (read, incoming) = mpsc::channel();
        thread::spawn(move || {
            loop {
                let next = frame::read(&mut reader);
                let last = !matches!(next, Incoming::Frame(_));
                // Nobody may want it any more; the agent's writes must not break for that.
                let _ = read.send(next);
                if last {
                    break;
                }
            }
        });
        Self {
            outgoing: Some(outgoing),
            incoming,
            outstanding: HashMap::new(),
            answers: HashMap::new(),
            notifications: Vec::new(),
            owed,
            closed: None,
            // Not 0, which is the id of notifications: a reply must not get it by luck.
            next_id: 1,
            limit,
        }
    }

    /// How long an answer may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        if let Some(outgoing) = &self.outgoing {
            // An agent that is gone is noticed by reading.
            let _ = outgoing.send(bytes.to_vec());
        }
    }

    /// Ends this side's sending.
    pub fn half_close(&mut self) {
        self.outgoing = None;
    }

    /// Notes that an answer to `id` is due.
    pub fn expect(&mut self, word: u32, id: u64, activity: Option<String>) {
        let activity = activity.filter(|activity| activity.len() <= ACTIVITY_BYTES);
        self.outstanding
            .entry(id)
            .or_default()
            .push_back(Asked { word, activity });
    }

    /// Sends a request with any body under the next id; returns the id.
    pub fn send_text(&mut self, word: u32, body: &[u8]) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.expect(word, id, None);
        self.send_bytes(&frame::encode(word, id, body));
        id
    }

    /// Sends a request; returns its id. Its activity id must come back.
    pub fn send(&mut self, word: u32, body: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.expect(word, id, body["ActivityId"].as_str().map(str::to_owned));
        self.send_bytes(&frame::encode(word, id, body.to_string().as_bytes()));
        id
    }

    /// The answer to `id`.
    pub fn answer(&mut self, id: u64) -> Outcome<Reply> {
        self.answer_within(id, self.limit)
    }

    /// The answer to `id`, within `limit`.
    pub fn answer_within(&mut self, id: u64, limit: Duration) -> Outcome<Reply> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(reply) = self.answers.get_mut(&id).and_then(VecDeque::pop_front) {
                return Ok(reply);
            }
            if !self.pump(deadline)? {
                return failed(match &self.closed {
                    Some(why) => format!("request {id} was not answered: the connection ended ({why})"),
                    None => format!("request {id} was not answered within {} ms", limit.as_millis()),
                });
            }
        }
    }

    /// Whether an answer to `id` is here already.
    pub fn has_answer(&mut self, id: u64) -> Outcome<bool> {
        while self.pump(Instant::now())? {}
        Ok(self.answers.get(&id).is_some_and(|replies| !replies.is_empty()))
    }

    /// A request and its answer.
    pub fn call(&mut self, word: u32, body: &Value) -> Outcome<Reply> {
        let id = self.send(word, body);
        self.answer(id)
    }

    /// The notifications for `container` that have come so far, taken out.
    pub fn notifications(&mut self, container: &str) -> Outcome<Vec<Value>> {
        while self.pump(Instant::now())? {}
        let (these, others) = std::mem::take(&mut self.notifications)
            .into_iter()
            .partition(|notification| notification["ContainerId"] == container);
        self.notifications = others;
        Ok(these)
    }

    /// The notification for `container`.
    pub fn notification(&mut self, container: &str) -> Outcome<Value> {
        let deadline = Instant::now() + self.limit;
        loop {
            if let Some(notification) = self.notifications(container)?.pop() {
                return Ok(notification);
            }
            if !self.pump(deadline)? {
                return failed(format!("no notification came for container {container:?}"));
            }
        }
    }

    /// Listens for `time`; anything that breaks a rule fails.
    pub fn listen_for(&mut self, time: Duration) -> Outcome {
        let deadline = Instant::now() + time;
        while self.pump(deadline)? {}
        Ok(())
    }

    /// Whether the agent has closed the connection within `limit`; what came before is passed over.
    pub fn closes_within(&mut self, limit: Duration) -> Outcome<bool> {
        self.listen_for(limit)?;
        Ok(self.closed.is_some())
    }

    /// Takes in one frame. `false` if none came until `deadline`, or the stream has ended.
    fn pump(&mut self, deadline: Instant) -> Outcome<bool> {
        if self.closed.is_some() {
            return Ok(false);
        }
        let time = deadline.saturating_duration_since(Instant::now());
        match self.incoming.recv_timeout(time) {
            Ok(Incoming::Frame(frame)) => self.take(frame).map(|()| true),
            Ok(Incoming::Closed(why)) => {
                self.closed = Some(why);
                Ok(false)
            }
            Ok(Incoming::Violation(what)) => {
                self.closed = Some("nothing after a broken frame can be read".into());
                failed(what)
            }
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => {
                self.closed = Some("the stream is closed".into());
                Ok(false)
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Outcome {
        let name = format!("frame 0x{:08x}, id {}", frame.word, frame.id);
        let body: Value = serde_json::from_slice(&frame.body)
            .map_err(|error| Stop::Failed(format!("{name}: its body is no JSON: {error}")))?;
        ensure(body.is_object(), || format!("{name}: its body is no JSON object"))?;
        if frame.word == word::CONTAINER_NOTIFICATION {
            return self.take_notification(&name, frame.id, body);
        }
        ensure(frame.word >> 28 == 2, || {
            format!("{name}: it is neither a response nor a container notification")
        })?;
        let asked = self
            .outstanding
            .get_mut(&frame.id)
            .and_then(VecDeque::pop_front)
            .ok_or_else(|| Stop::Failed(format!("{name}: no request with this id waits for an answer")))?;
        let expected = asked.word & 0x0fff_ffff | 0x2000_0000;
        ensure(frame.word == expected, || {
            format!("{name}: the response to 0x{:08x} is 0x{expected:08x}", asked.word)
        })?;
        let reply = Reply::new(frame.id, body)?;
        if let Some(activity) = asked.activity {
            ensure(reply.body["ActivityId"] == activity.as_str(), || {
                format!(
                    "{name}: the ActivityId is {}, the request's was {activity:?}",
                    reply.body["ActivityId"]
                )
            })?;
        }
        self.answers.entry(frame.id).or_default().push_back(reply);
        Ok(())
    }

    fn take_notification(&mut self, name: &str, id: u64, body: Value) -> Outcome {
        ensure(id == 0, || format!("{name}: the id of a notification is 0"))?;
        let container = body["ContainerId"].as_str().unwrap_or_default();
        ensure(self.owed.settle(container), || {
            format!("{name}: a notification for container {container:?}, for which none is due")
        })?;
        self.notifications.push(body);
        Ok(())
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("outstanding", &self.outstanding)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}
