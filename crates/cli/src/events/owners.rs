//! Every owner of a root that tells its events, those included that come later.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_observe::{Heard, Subscription, SubscriptionError, Told, types};
use cofferdam_owner::{Entry, ProcessId, Root};
use cofferdam_pod::ProcessName;
use serde_json::{Map, json};
use tokio::sync::mpsc::UnboundedSender;

/// What is heard of an owner.
#[derive(Debug)]
pub(super) enum News {
    /// Something happened.
    Told(Told),
    /// So many events are not kept any more.
    Missed(u64),
    /// It ends, or does not tell us any more; it had told so many.
    Silent(u64),
}

/// News, and whose.
pub(super) type Said = (String, News);

/// An owner that was found.
struct Owner {
    /// Its process: another one of the same name is another owner.
    process: ProcessId,
    entry: Entry,
    /// Whether somebody listens to it.
    heard: bool,
    /// How much of what it tells has been heard.
    next: u64,
    /// Its containers that were not deleted.
    containers: BTreeSet<String>,
}

/// The owners of a root.
pub(super) struct Owners {
    root: Root,
    known: BTreeMap<String, Owner>,
    said: UnboundedSender<Said>,
}

impl Owners {
    pub(super) fn new(root: Root, said: UnboundedSender<Said>) -> Self {
        Self {
            root,
            known: BTreeMap::new(),
            said,
        }
    }

    /// Looks for owners, and listens to those that nobody listens to yet. Returns what they told before, and what became of
    /// the containers of those that are gone.
    pub(super) async fn look(&mut self) -> Vec<(String, Told)> {
        let mut told = self.lost();
        let entries = self.root.entries().unwrap_or_else(|error| {
            tracing::warn!(%error, "looking for owners");
            Vec::new()
        });
        for entry in entries {
            let id = entry.id();
            if self.known.get(&id).is_some_and(|owner| owner.heard) || !entry.is_alive() {
                continue;
            }
            // Whoever is just beginning is found at the next look.
            let Ok(record) = entry.record() else { continue };
            let from = self.known.get(&id).map_or(0, |owner| owner.next);
            match Subscription::open(entry.dir(), from).await {
                Ok((subscription, heard)) => {
                    let owner = self.known.entry(id.clone()).or_insert_with(|| Owner {
                        process: record.owner,
                        entry: entry.clone(),
                        heard: true,
                        next: 0,
                        containers: BTreeSet::new(),
                    });
                    owner.heard = true;
                    told.extend(past(&id, heard, &self.said));
                    tokio::spawn(listen(id, subscription, self.said.clone()));
                }
                // It has no VM yet, or tells no events at all.
                Err(SubscriptionError::Io(_)) => {}
                Err(error) => tracing::warn!("{id}: {error}"),
            }
        }
        told
    }

    /// Owners that were listened to and are gone: what is told of their containers, which they did not delete.
    fn lost(&mut self) -> Vec<(String, Told)> {
        let mut told = Vec::new();
        self.known.retain(|id, owner| {
            let same = || {
                owner
                    .entry
                    .record()
                    .is_ok_and(|record| record.owner == owner.process)
            };
            if owner.heard || (owner.entry.is_alive() && same()) {
                return true;
            }
            for container in std::mem::take(&mut owner.containers) {
                let mut attributes = Map::new();
                attributes.insert("owner".to_owned(), owner.process.pid.into());
                if owner.entry.dir().exists() {
                    let remedy = format!("cofferdam fsck --repair {id}");
                    attributes.insert("remedy".to_owned(), json!(remedy));
                }
                let lost = Told::now(types::LOST, ProcessName::init(container), attributes);
                told.push((id.clone(), lost));
            }
            false
        });
        told
    }

    /// Notes what an event says of its owner's containers.
    pub(super) fn note(&mut self, id: &str, told: &Told) {
        let Some(owner) = self.known.get_mut(id) else {
            return;
        };
        match (told.kind.as_str(), &told.exec) {
            (types::DELETE, None) => drop(owner.containers.remove(&told.id)),
            (types::LOST, _) => {}
            _ => drop(owner.containers.insert(told.id.clone())),
        }
    }

    /// Notes that nobody listens to an owner any more.
    pub(super) fn silent(&mut self, id: &str, next: u64) {
        if let Some(owner) = self.known.get_mut(id) {
            owner.heard = false;
            owner.next = next;
        }
    }
}

fn past(id: &str, heard: Heard, said: &UnboundedSender<Said>) -> Vec<(String, Told)> {
    if heard.missed > 0 {
        // Whoever would hear it is the one who is looking.
        let _ = said.send((id.to_owned(), News::Missed(heard.missed)));
    }
    heard
        .events
        .into_iter()
        .map(|told| (id.to_owned(), told))
        .collect()
}

async fn listen(id: String, mut subscription: Subscription, said: UnboundedSender<Said>) {
    loop {
        let news = match subscription.next().await {
            Ok(Some(told)) => News::Told(told),
            Ok(None) => News::Silent(subscription.heard()),
            Err(error) => {
                tracing::debug!(%error, "listening to {id}");
                News::Silent(subscription.heard())
            }
        };
        let ends = matches!(news, News::Silent(_));
        if said.send((id.clone(), news)).is_err() || ends {
            return;
        }
    }
}
