//! The events of one owner, as they are heard.

use std::{io, path::Path, time::Duration};

use cofferdam_owner::control;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::{
    Told,
    events::SOCKET,
    hub::{Greeting, HISTORY, Numbered},
};

/// The longest line of an owner, in bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// For an owner to tell its history.
const HISTORY_LIMIT: Duration = Duration::from_secs(5);

/// Why an owner's events could not be heard.
#[derive(Debug, thiserror::Error)]
pub enum SubscriptionError {
    /// Nobody listens, or the connection broke.
    #[error("listening to the owner: {0}")]
    Io(#[from] io::Error),
    /// What came is no event.
    #[error("the owner's events: {0}")]
    Malformed(#[source] serde_json::Error),
    /// More than any owner keeps, or than a line can be.
    #[error("the owner's events: {0}")]
    TooMuch(&'static str),
    /// It is alive, and tells nothing.
    #[error("the owner does not tell its events in time")]
    Silent,
}

/// A connection to an owner that tells its events.
#[derive(Debug)]
pub struct Subscription {
    lines: BufReader<OwnedReadHalf>,
    /// A line that has come so far.
    line: Vec<u8>,
    /// The number of the next event that was not heard before.
    next: u64,
    /// Its end is how we say that we have left.
    _output: OwnedWriteHalf,
}

/// Events, and how many before them were not heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// In the order in which they were told.
    pub events: Vec<Told>,
    /// Events that nobody keeps any more.
    pub missed: u64,
}

impl Subscription {
    /// Connects to the owner whose directory this is. Returns its history, of which only what comes after the first `from`
    /// events of this owner is told: 0 for somebody who has heard nothing yet.
    ///
    /// # Errors
    /// [`SubscriptionError`].
    pub async fn open(dir: &Path, from: u64) -> Result<(Self, Heard), SubscriptionError> {
        let stream = control::connect(dir, SOCKET)?;
        stream.set_nonblocking(true)?;
        let (input, output) = UnixStream::from_std(stream)?.into_split();
        let mut subscription = Self {
            lines: BufReader::new(input),
            line: Vec::new(),
            next: from,
            _output: output,
        };
        let history = subscription.history();
        let heard = timeout(HISTORY_LIMIT, history)
            .await
            .map_err(|_| SubscriptionError::Silent)??;
        Ok((subscription, heard))
    }

    async fn history(&mut self) -> Result<Heard, SubscriptionError> {
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let greeting: Greeting = self.read().await?.ok_or_else(gone)?;
        if greeting.history > HISTORY {
            return Err(SubscriptionError::TooMuch("a history that is too long"));
        }
        let mut heard = Heard::default();
        for _ in 0..greeting.history {
            let numbered: Numbered = self.read().await?.ok_or_else(gone)?;
            if numbered.number < self.next {
                continue;
            }
            // Before what is first heard of an owner nothing was missed: nobody listened.
            if self.next > 0 {
                heard.missed += numbered.number - self.next;
            }
            self.next = numbered.number + 1;
            heard.events.push(numbered.told);
        }
        Ok(heard)
    }

    /// How many events this owner has told so far, heard or not.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.next
    }

    /// The next event; `None` when the owner has ended, or has dropped us. Cancel-safe.
    ///
    /// # Errors
    /// [`SubscriptionError`].
    pub async fn next(&mut self) -> Result<Option<Told>, SubscriptionError> {
        let Some(numbered) = self.read::<Numbered>().await? else {
            return Ok(None);
        };
        self.next = numbered.number + 1;
        Ok(Some(numbered.told))
    }

    async fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>, SubscriptionError> {
        let left = MAX_LINE_BYTES.saturating_sub(self.line.len() as u64);
        let mut bounded = (&mut self.lines).take(left);
        bounded.read_until(b'\n', &mut self.line).await?;
        if self.line.last() != Some(&b'\n') {
            return match self.line.len() as u64 >= MAX_LINE_BYTES {
                true => Err(SubscriptionError::TooMuch("a line that is too long")),
                // Half a line is nobody's event.
                false => Ok(None),
            };
        }
        let parsed = serde_json::from_slice(&self.line).map_err(SubscriptionError::Malformed);
        self.line.clear();
        parsed.map(Some)
    }
}
