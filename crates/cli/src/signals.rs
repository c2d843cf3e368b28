//! Signals of the caller, for the container.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Signals that are passed on, by their Linux numbers.
const FORWARDED: [i32; 6] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTERM,
];

/// How many requests to end (SIGINT or SIGTERM) make cofferdam kill instead of ask.
const PATIENCE: u32 = 3;

/// One event from the caller's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A signal to pass on.
    Signal(i32),
    /// The terminal has another size.
    Resized,
}

/// The events, in order of arrival.
pub(crate) struct Signals {
    events: mpsc::Receiver<Event>,
    asked_to_end: u32,
}

impl Signals {
    /// Takes over the forwarded signals and SIGWINCH; from here on none of them ends this process by itself.
    pub(crate) fn watch() -> io::Result<Self> {
        let (sender, events) = mpsc::channel(32);
        let watched = FORWARDED.map(|number| (number, Event::Signal(number)));
        for (number, event) in watched.into_iter().chain([(libc::SIGWINCH, Event::Resized)]) {
            let mut arrivals = signal(SignalKind::from_raw(number))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while arrivals.recv().await.is_some() && sender.send(event).await.is_ok() {}
            });
        }
        Ok(Self {
            events,
            asked_to_end: 0,
        })
    }

    /// The next event. Cancel-safe. The third SIGINT or SIGTERM is turned into SIGKILL: a container whose init
    /// ignores them would otherwise never end.
    pub(crate) async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => self.harden(event),
            // The senders live as long as the runtime.
            None => std::future::pending().await,
        }
    }

    /// Waits for a signal that asks to end, while there is no container yet to pass anything on to.
    pub(crate) async fn interrupted(&mut self) -> i32 {
        loop {
            if let Event::Signal(number @ (libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT)) =
                self.next().await
            {
                return number;
            }
        }
    }

    fn harden(&mut self, event: Event) -> Event {
        if matches!(event, Event::Signal(libc::SIGINT | libc::SIGTERM)) {
            self.asked_to_end += 1;
            if self.asked_to_end >= PATIENCE {
                return Event::Signal(libc::SIGKILL);
            }
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_request_to_end_kills() {
        let (_sender, events) = mpsc::channel(1);
        let mut signals = Signals {
            events,
            asked_to_end: 0,
        };
        let seen = [libc::SIGINT, libc::SIGUSR1, libc::SIGTERM, libc::SIGINT]
            .map(|number| signals.harden(Event::Signal(number)));
        let expected = [libc::SIGINT, libc::SIGUSR1, libc::SIGTERM, libc::SIGKILL].map(Event::Signal);
        assert_eq!(seen, expected);
    }
}
