//! Who hears that the kernel has killed processes of a container for want of memory.
//!
//! The kernel counts them in the cgroup's `memory.events` before it sends the signal, so whoever reads the count when
//! a process has ended knows why. One thread watches the counts of all containers; a request that waits is answered
//! from there, or when the container's first process has ended.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use cofferdam_protocol::message::WaitForOomReply;
use rustix::{
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    fd::OwnedFd,
    io::Errno,
};

use crate::{
    error::{AgentError, Result},
    process::STACK_BYTES,
};

/// Most requests that wait for one container.
const MAX_WAITERS: usize = 256;
/// `memory.events` has seven short lines.
const EVENTS_BYTES: usize = 1024;

type Answer = Box<dyn FnOnce(WaitForOomReply) + Send>;

/// Watches containers.
pub(in super::super) struct OomWatch {
    epoll: OwnedFd,
    watched: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_number: HashMap<u64, Watched>,
    next: u64,
}

struct Watched {
    container: String,
    /// `None` once it need not be watched any more, or where the kernel does not count.
    events: Option<File>,
    kills: u64,
    ended: bool,
    waiters: Vec<(u64, Answer)>,
}

impl OomWatch {
    /// Starts the watching thread.
    pub(in super::super) fn start() -> io::Result<Arc<Self>> {
        let watch = Arc::new(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            watched: Mutex::default(),
        });
        let watching = Arc::clone(&watch);
        thread::Builder::new()
            .name("oom".into())
            .stack_size(STACK_BYTES)
            .spawn(move || watching.run())?;
        Ok(watch)
    }

    /// Watches `cgroup` for `container` from now on. A kernel that does not count is no error: nothing is ever heard.
    pub(in super::super) fn add(&self, container: &str, cgroup: &Path) {
        let events = File::open(cgroup.join("memory.events"));
        let mut table = self.lock();
        let number = table.next;
        table.next += 1;
        let mut watched = Watched {
            container: container.to_owned(),
            events: None,
            kills: 0,
            ended: false,
            waiters: Vec::new(),
        };
        match events {
            Err(error) => tracing::warn!(container, %error, "the container's memory events cannot be heard"),
            Ok(events) => {
                // The first reading, so that only what comes after it wakes the thread.
                watched.kills = kills(&events).unwrap_or(0);
                let changed = EventFlags::PRI;
                match epoll::add(&self.epoll, &events, EventData::new_u64(number), changed) {
                    Ok(()) => watched.events = Some(events),
                    Err(error) => {
                        tracing::warn!(container, %error, "the container's memory events cannot be watched");
                    }
                }
            }
        }
        table.by_number.insert(number, watched);
    }

    /// Calls `answer` once more than `seen` processes of `container` have been killed, or its first one has ended.
    pub(in super::super) fn wait(&self, container: &str, seen: u64, answer: Answer) -> Result<()> {
        let mut table = self.lock();
        let watched = table
            .of(container)
            .ok_or_else(|| AgentError::UnknownContainer(container.to_owned()))?;
        if watched.waiters.len() >= MAX_WAITERS {
            return Err(AgentError::InvalidState(format!(
                "too many wait for container {container:?} to run out of memory already"
            )));
        }
        watched.waiters.push((seen, answer));
        // A reading of this thread is news that the watching one will not get.
        watched.count();
        let answers = watched.due();
        drop(table);
        send(answers);
        Ok(())
    }

    /// How many processes of `container` have been killed so far.
    pub(in super::super) fn kills(&self, container: &str) -> u64 {
        let (kills, answers) = {
            let mut table = self.lock();
            let Some(watched) = table.of(container) else {
                return 0;
            };
            watched.count();
            (watched.kills, watched.due())
        };
        send(answers);
        kills
    }

    /// The container's first process has ended: the count is final.
    pub(in super::super) fn ended(&self, container: &str) -> u64 {
        let (kills, answers) = {
            let mut table = self.lock();
            let Some(watched) = table.of(container) else {
                return 0;
            };
            watched.count();
            watched.ended = true;
            if let Some(events) = watched.events.take() {
                let _ = epoll::delete(&self.epoll, &events);
            }
            (watched.kills, watched.due())
        };
        send(answers);
        kills
    }

    /// Forgets a container. Who still waits hears that it has ended.
    pub(in super::super) fn forget(&self, container: &str) {
        self.ended(container);
        self.lock()
            .by_number
            .retain(|_, watched| watched.container != container);
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(16);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "memory events are not heard any more");
                    return;
                }
            }
            for event in &events {
                let number = event.data.u64();
                let answers = {
                    let mut table = self.lock();
                    let Some(watched) = table.by_number.get_mut(&number) else {
                        continue;
                    };
                    if !watched.count()
                        && let Some(events) = watched.events.take()
                    {
                        // Its cgroup is gone; it would wake this thread for ever.
                        let _ = epoll::delete(&self.epoll, &events);
                    }
                    watched.due()
                };
                send(answers);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn of(&mut self, container: &str) -> Option<&mut Watched> {
        self.by_number
            .values_mut()
            .find(|watched| watched.container == container)
    }
}

impl Watched {
    /// Counts anew; whether that was possible.
    fn count(&mut self) -> bool {
        let Some(kills) = self.events.as_ref().and_then(|events| kills(events).ok()) else {
            return false;
        };
        // Never back: what the host was told stays true.
        self.kills = self.kills.max(kills);
        true
    }

    fn reply(&self) -> WaitForOomReply {
        WaitForOomReply {
            kills: self.kills,
            ended: self.ended,
        }
    }

    /// The answers that are due, each with what it says.
    fn due(&mut self) -> Vec<(Answer, WaitForOomReply)> {
        let reply = self.reply();
        self.waiters
            .extract_if(.., |(seen, _)| reply.ended || reply.kills > *seen)
            .map(|(_, answer)| (answer, reply))
            .collect()
    }
}

/// Not under the lock: an answer is written to the host.
fn send(answers: Vec<(Answer, WaitForOomReply)>) {
    for (answer, reply) in answers {
        answer(reply);
    }
}

/// How many processes of a cgroup have been killed; 0 where the kernel does not count.
pub(super) fn kills_of(cgroup: &Path) -> u64 {
    File::open(cgroup.join("memory.events"))
        .and_then(|events| kills(&events))
        .unwrap_or(0)
}

fn kills(events: &File) -> io::Result<u64> {
    let mut text = vec![0; EVENTS_BYTES];
    let read = events.read_at(&mut text, 0)?;
    Ok(parse(&text[..read]))
}

fn parse(text: &[u8]) -> u64 {
    String::from_utf8_lossy(text)
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc, time::Duration};

    use super::*;

    /// A watch without a thread: an ordinary file never says that it has changed.
    fn watch(dir: &Path) -> OomWatch {
        fs::write(dir.join("memory.events"), "oom 0\noom_kill 0\n").unwrap();
        let watch = OomWatch {
            epoll: epoll::create(CreateFlags::CLOEXEC).unwrap(),
            watched: Mutex::default(),
        };
        watch.lock().by_number.insert(
            7,
            Watched {
                container: "c".into(),
                events: Some(File::open(dir.join("memory.events")).unwrap()),
                kills: 0,
                ended: false,
                waiters: Vec::new(),
            },
        );
        watch
    }

    fn waiting(watch: &OomWatch, seen: u64) -> mpsc::Receiver<WaitForOomReply> {
        let (sender, answers) = mpsc::channel();
        watch
            .wait("c", seen, Box::new(move |reply| sender.send(reply).unwrap()))
            .unwrap();
        answers
    }

    #[test]
    fn the_count_is_that_of_killed_processes_alone() {
        assert_eq!(
            parse(b"low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n"),
            5
        );
        assert_eq!(parse(b""), 0);
        assert_eq!(parse(b"oom_kill x\n"), 0);
    }

    #[test]
    fn a_wait_ends_when_more_are_killed_than_are_known_of_or_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let watch = watch(dir.path());
        let (first, later) = (waiting(&watch, 0), waiting(&watch, 1));
        fs::write(dir.path().join("memory.events"), "oom_kill 1\n").unwrap();
        let answers = {
            let mut table = watch.lock();
            let watched = table.of("c").unwrap();
            assert!(watched.count());
            watched.due()
        };
        send(answers);
        let killed = WaitForOomReply {
            kills: 1,
            ended: false,
        };
        assert_eq!(first.try_recv(), Ok(killed));
        later.try_recv().unwrap_err();
        assert_eq!(waiting(&watch, 0).try_recv(), Ok(killed), "at once");
        assert_eq!(watch.ended("c"), 1);
        let ended = WaitForOomReply {
            kills: 1,
            ended: true,
        };
        assert_eq!(later.recv_timeout(Duration::from_secs(5)), Ok(ended));
        assert_eq!(waiting(&watch, 9).try_recv(), Ok(ended), "after the end");
        watch.forget("c");
        let gone = watch.wait("c", 0, Box::new(|_| {})).unwrap_err();
        assert_eq!(gone.code(), 0xC037_010E);
    }

    #[test]
    fn waits_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let watch = watch(dir.path());
        for _ in 0..MAX_WAITERS {
            watch.wait("c", 0, Box::new(|_| {})).unwrap();
        }
        watch.wait("c", 0, Box::new(|_| {})).unwrap_err();
    }

    #[test]
    fn a_container_without_a_count_is_watched_in_vain_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let watch = OomWatch::start().unwrap();
        watch.add("c", dir.path());
        let answers = waiting(&watch, 0);
        assert_eq!(watch.kills("c"), 0);
        watch.forget("c");
        let reply = answers.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(
            reply,
            WaitForOomReply {
                kills: 0,
                ended: true
            }
        );
    }
}
