//! Requests under way, by tag, and their flushing.
//!
//! A request that has not begun when its Tflush comes is dropped without a reply. One that has begun is finished and
//! answered; the client must honour that reply, since it comes before Rflush (flush(5)). Either way Rflush is sent
//! only once nothing more will be heard of the old tag. Pure: the caller sends what it is told.

use std::collections::HashMap;

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Cancelled,
    Begun,
}

#[derive(Debug)]
struct Entry<P> {
    stage: Stage,
    /// The Tflush requests to answer after this one: their tags and places.
    flushes: Vec<(u16, P)>,
}

/// Requests under way. `P` is what a waiting Tflush keeps: its place among the requests of the connection.
#[derive(Debug)]
pub(crate) struct Flight<P> {
    requests: HashMap<u16, Entry<P>>,
}

impl<P> Default for Flight<P> {
    fn default() -> Self {
        Self {
            requests: HashMap::new(),
        }
    }
}

impl<P> Flight<P> {
    /// Notes a request. False if its tag is in use.
    pub(crate) fn add(&mut self, tag: u16) -> bool {
        let entry = Entry {
            stage: Stage::Waiting,
            flushes: Vec::new(),
        };
        match self.requests.entry(tag) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(entry);
                true
            }
        }
    }

    /// Begins a request. False if it was flushed before: then it must not be carried out.
    pub(crate) fn begin(&mut self, tag: u16) -> bool {
        match self.requests.get_mut(&tag) {
            Some(entry) if entry.stage == Stage::Waiting => {
                entry.stage = Stage::Begun;
                true
            }
            _ => false,
        }
    }

    /// Ends a request, whose reply, if any, has been sent. Returns the Tflush requests to answer now, in order.
    pub(crate) fn end(&mut self, tag: u16) -> Vec<(u16, P)> {
        let mut answer = Vec::new();
        let mut ended = vec![tag];
        while let Some(tag) = ended.pop() {
            if let Some(entry) = self.requests.remove(&tag) {
                // A Tflush can itself be the old tag of another one.
                ended.extend(entry.flushes.iter().rev().map(|(tag, _)| tag));
                answer.extend(entry.flushes);
            }
        }
        answer
    }

    /// Notes a Tflush that [`Flight::add`] accepted as `tag`. Returns its place if it can be answered at once.
    pub(crate) fn flush(&mut self, tag: u16, old: u16, place: P) -> Option<P> {
        match self.requests.get_mut(&old) {
            Some(entry) if tag != old => {
                if entry.stage == Stage::Waiting {
                    entry.stage = Stage::Cancelled;
                }
                entry.flushes.push((tag, place));
                None
            }
            _ => Some(place),
        }
    }

    /// Cancels everything that has not begun.
    pub(crate) fn cancel_all(&mut self) {
        for entry in self.requests.values_mut() {
            if entry.stage == Stage::Waiting {
                entry.stage = Stage::Cancelled;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_in_use_is_refused_and_free_again_after_the_end() {
        let mut flight = Flight::<()>::default();
        assert!(flight.add(1));
        assert!(!flight.add(1));
        assert!(flight.begin(1));
        assert!(flight.end(1).is_empty());
        assert!(flight.add(1));
    }

    #[test]
    fn a_request_flushed_before_its_beginning_never_begins() {
        let mut flight = Flight::<()>::default();
        assert!(flight.add(1) && flight.add(2));
        assert!(flight.flush(2, 1, ()).is_none());
        assert!(!flight.begin(1));
        assert_eq!(flight.end(1), [(2, ())]);
    }

    #[test]
    fn a_request_under_way_is_finished_before_its_flush_is_answered() {
        let mut flight = Flight::<()>::default();
        assert!(flight.add(1) && flight.begin(1));
        assert!(flight.add(2) && flight.flush(2, 1, ()).is_none());
        assert!(flight.add(3) && flight.flush(3, 1, ()).is_none());
        assert_eq!(flight.end(1), [(2, ()), (3, ())]);
    }

    #[test]
    fn a_flush_of_an_unknown_tag_is_answered_at_once() {
        let mut flight = Flight::<()>::default();
        assert!(flight.add(2));
        assert!(flight.flush(2, 1, ()).is_some());
    }

    #[test]
    fn a_flush_of_itself_is_answered_at_once() {
        let mut flight = Flight::<()>::default();
        assert!(flight.add(2));
        assert!(flight.flush(2, 2, ()).is_some());
    }

    #[test]
    fn a_flush_of_a_flush_follows_it() {
        let mut flight = Flight::<()>::default();
        assert!(flight.add(1) && flight.begin(1));
        assert!(flight.add(2) && flight.flush(2, 1, ()).is_none());
        assert!(flight.add(3) && flight.flush(3, 2, ()).is_none());
        assert_eq!(flight.end(1), [(2, ()), (3, ())]);
        assert!(flight.add(2) && flight.add(3));
    }
}
