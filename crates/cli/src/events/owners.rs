//! Every owner of a root that tells its events, those included that come later.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use cofferdam_observe::{Heard, Subscription, SubscriptionError, Told, types};
use cofferdam_owner::{Entry, ProcessId, Root};
use cofferdam_pod::ProcessName;
use serde_json::Map;
use tokio::sync::mpsc::UnboundedSender;

/// What is heard of an owner.
#[derive(Debug)]
pub(super) enum News {
    /// It tells us: this first.
    Past(Heard),
    /// Something happened.
    Told(Told),
    /// It does not tell us, or not any more.
    Silent {
        /// How much it has told altogether.
        heard: u64,
    },
}

/// News, and whose.
pub(super) type Said = (String, News);

/// An owner that was found.
struct Owner {
    /// Its process: another one of the same name is another owner.
    process: ProcessId,
    entry: Entry,
    ear: Ear,
    /// How much of what it tells has been heard.
    heard: u64,
    /// Its containers that were not deleted.
    containers: BTreeSet<String>,
}

/// Whether somebody listens to an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ear {
    /// Nobody does.
    Closed,
    /// Somebody tries to.
    Opening,
    /// Somebody does.
    Open,
}

/// The owners of a root.
pub(super) struct Owners {
    root: Root,
    known: BTreeMap<String, Owner>,
    said: UnboundedSender<Said>,
}

impl Owners {
    /// News of the root's owners go to `said`.
    pub(super) fn new(root: Root, said: UnboundedSender<Said>) -> Self {
        Self {
            root,
            known: BTreeMap::new(),
            said,
        }
    }

    /// Looks for owners, and begins to listen to those that nobody listens to yet. Returns what became of the containers of
    /// those that are gone.
    pub(super) fn look(&mut self) -> Vec<(String, Told)> {
        let told = self.lost();
        let entries = self.root.entries().unwrap_or_else(|error| {
            tracing::warn!(%error, "looking for owners");
            Vec::new()
        });
        for entry in entries {
            let id = entry.id();
            if self.known.get(&id).is_some_and(|owner| owner.ear != Ear::Closed) || !entry.is_alive() {
                continue;
            }
            // Whoever is just beginning is found at the next look.
            let Ok(record) = entry.record() else { continue };
            let dir = entry.dir().to_owned();
            let owner = self.known.entry(id.clone()).or_insert_with(|| Owner {
                process: record.owner,
                entry,
                ear: Ear::Opening,
                heard: 0,
                containers: BTreeSet::new(),
            });
            owner.ear = Ear::Opening;
            let (said, heard) = (self.said.clone(), owner.heard);
            tokio::spawn(async move { listen(&id, &dir, heard, &said).await });
        }
        told
    }

    /// Whether there is an owner that has not said yet what was before.
    pub(super) fn awaits(&self) -> bool {
        self.known.values().any(|owner| owner.ear == Ear::Opening)
    }

    /// Owners that told us something and are gone: what is told of their containers, which they did not delete.
    fn lost(&mut self) -> Vec<(String, Told)> {
        let mut told = Vec::new();
        self.known.retain(|id, owner| {
            let same = || {
                owner
                    .entry
                    .record()
                    .is_ok_and(|record| record.owner == owner.process)
            };
            if owner.ear != Ear::Closed || (owner.entry.is_alive() && same()) {
                return true;
            }
            for container in std::mem::take(&mut owner.containers) {
                let mut attributes = Map::new();
                attributes.insert("owner".to_owned(), owner.process.pid.into());
                if owner.entry.dir().exists() {
                    let remedy = format!("cofferdam fsck --repair {id}");
                    attributes.insert("remedy".to_owned(), remedy.into());
                }
                let lost = Told::now(types::LOST, ProcessName::init(container), attributes);
                told.push((id.clone(), lost));
            }
            false
        });
        told
    }

    /// Notes what an owner said, and returns the events of it.
    pub(super) fn note(&mut self, id: &str, news: News) -> Vec<Told> {
        let Some(owner) = self.known.get_mut(id) else {
            return Vec::new();
        };
        let events = match news {
            News::Past(past) => {
                owner.ear = Ear::Open;
                if past.missed > 0 {
                    tracing::warn!("{id}: {} events were missed, and are kept no longer", past.missed);
                }
                past.events
            }
            News::Told(told) => vec![told],
            News::Silent { heard } => {
                owner.ear = Ear::Closed;
                owner.heard = heard;
                return Vec::new();
            }
        };
        for told in &events {
            match (told.kind.as_str(), &told.exec) {
                (types::DELETE, None) => drop(owner.containers.remove(&told.id)),
                _ => drop(owner.containers.insert(told.id.clone())),
            }
        }
        events
    }
}

async fn listen(id: &str, dir: &Path, heard: u64, said: &UnboundedSender<Said>) {
    // Whoever does not take it any more has ended.
    let say = |news| said.send((id.to_owned(), news)).is_ok();
    let mut subscription = match Subscription::open(dir, heard).await {
        Ok((subscription, past)) => {
            say(News::Past(past));
            subscription
        }
        Err(error) => {
            match error {
                // It has no VM yet, or tells no events at all.
                SubscriptionError::Io(_) => {}
                error => tracing::warn!("{id}: {error}"),
            }
            say(News::Silent { heard });
            return;
        }
    };
    loop {
        let next = subscription.next().await;
        if let Err(error) = &next {
            tracing::debug!(%error, "listening to {id}");
        }
        let goes_on = match next {
            Ok(Some(told)) => say(News::Told(told)),
            Ok(None) | Err(_) => {
                let heard = subscription.heard();
                say(News::Silent { heard });
                false
            }
        };
        if !goes_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cofferdam_observe::Events;
    use cofferdam_owner::{Isolation, Owned};
    use cofferdam_pod::{Event, Exit};
    use tokio::{
        sync::mpsc::{UnboundedReceiver, unbounded_channel},
        time::timeout,
    };

    use super::*;

    /// For what must happen.
    const SOON: Duration = Duration::from_secs(30);

    /// An owner whose events are told by hand.
    struct Teller {
        owned: Owned,
        events: Events,
        told: UnboundedSender<Event>,
    }

    impl Teller {
        fn begin(root: &Root, id: &str) -> Self {
            let owned = Owned::claim(root, id, Path::new("/"), Isolation::Vm).unwrap();
            let (told, received) = unbounded_channel();
            let events = Events::serve(owned.dir(), received).unwrap();
            Self { owned, events, told }
        }

        fn tell(&self, kills: u64) {
            let container = self.owned.entry().id();
            self.told.send(Event::OutOfMemory { container, kills }).unwrap();
        }

        fn deleted(&self) {
            let exit = Exit {
                status: 0,
                at: std::time::SystemTime::now(),
                lost: false,
            };
            let name = ProcessName::init(self.owned.entry().id());
            self.told.send(Event::Deleted { name, exit }).unwrap();
        }
    }

    /// Looks until so many events were heard, and returns them as words.
    async fn heard(owners: &mut Owners, news: &mut UnboundedReceiver<Said>, wanted: usize) -> Vec<String> {
        let mut words = Vec::new();
        let hearing = async {
            while words.len() < wanted {
                let mut told = owners.look();
                while let Ok((id, news)) = news.try_recv() {
                    let events = owners.note(&id, news);
                    told.extend(events.into_iter().map(|told| (id.clone(), told)));
                }
                words.extend(told.into_iter().map(|(_, told)| {
                    let kills = told.attributes.get("kills").map(|kills| format!(" {kills}"));
                    format!("{} {}{}", told.id, told.kind, kills.unwrap_or_default())
                }));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, hearing).await.unwrap();
        words
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn owners_that_come_are_heard_and_those_that_vanish_are_lost() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path().join("run"));
        let (said, mut news) = unbounded_channel();
        let mut owners = Owners::new(root.clone(), said);
        assert_eq!(owners.look(), [], "a root that was never made has nobody");
        let web = Teller::begin(&root, "web");
        let db = Teller::begin(&root, "db");
        web.tell(1);
        assert_eq!(heard(&mut owners, &mut news, 1).await, ["web oom 1"]);
        db.tell(2);
        assert_eq!(heard(&mut owners, &mut news, 1).await, ["db oom 2"]);
        // One ends in order, the other does not: its lock is free, and its record is there.
        db.deleted();
        db.events.finish().await;
        db.owned.close().unwrap();
        drop(web.events);
        drop(web.owned);
        let mut words = heard(&mut owners, &mut news, 2).await;
        words.sort();
        assert_eq!(words, ["db delete", "web lost"]);
        assert_eq!(owners.look(), []);
        assert!(!owners.awaits());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_was_dropped_comes_back_and_hears_nothing_twice() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path());
        let (said, mut news) = unbounded_channel();
        let mut owners = Owners::new(root.clone(), said);
        let web = Teller::begin(&root, "web");
        web.tell(1);
        assert_eq!(heard(&mut owners, &mut news, 1).await, ["web oom 1"]);
        let Teller { owned, events, told } = web;
        drop((events, told));
        std::fs::remove_file(owned.dir().join("events.sock")).unwrap();
        let (told, received) = unbounded_channel();
        let events = Events::serve(owned.dir(), received).unwrap();
        let web = Teller { owned, events, told };
        // It counts from the beginning again, so that this is the one that was heard.
        web.tell(1);
        web.tell(2);
        assert_eq!(heard(&mut owners, &mut news, 1).await, ["web oom 2"]);
        assert_eq!(owners.known["web"].containers.len(), 1);
        web.owned.close().unwrap();
    }
}
