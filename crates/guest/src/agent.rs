//! The agent's parts together: what a request needs to be served.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
};

use cofferdam_mounting::mountinfo::Baseline;
use cofferdam_protocol::message::ContainerNotification;
use serde_json::{Value, json};

use crate::{
    bridge::Session,
    container::Containers,
    error::{During, Result},
    network::Network,
    process::{Processes, reaper::Reaper, timer::Timer},
    storage::{
        disks::{self, Disks},
        verity,
    },
    transport::Dialer,
};

/// Most notifications kept while no host listens.
const QUEUED: usize = 4096;

/// Everything a request may need.
pub(crate) struct Agent {
    pub(crate) dialer: Dialer,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) timer: Arc<Timer>,
    pub(crate) disks: Disks,
    pub(crate) network: Arc<Network>,
    pub(crate) containers: Containers,
    pub(crate) processes: Processes,
    pub(crate) outbox: Arc<Outbox>,
    baseline: Baseline,
}

impl Agent {
    /// Starts the agent's threads. What is mounted now counts as the VM's own.
    pub(crate) fn start(dialer: Dialer) -> Result<Arc<Self>> {
        let starting = || "starting the agent's threads".to_owned();
        let reaper = Reaper::start().during(starting)?;
        let outbox = Arc::new(Outbox::default());
        let notifications = Arc::clone(&outbox);
        let network = Arc::new(Network::default());
        Ok(Arc::new(Self {
            dialer,
            timer: Timer::start().during(starting)?,
            disks: Disks::default(),
            containers: Containers::new(
                Arc::clone(&reaper),
                Arc::clone(&network),
                Arc::new(move |notification| notifications.send(notification)),
            )
            .during(starting)?,
            network,
            reaper,
            processes: Processes::default(),
            outbox,
            baseline: Baseline::take()?,
        }))
    }

    /// The mounts made since the agent started, as the kernel lists them, and what failed removals of mounts left.
    pub(crate) fn mounts(&self) -> Result<Vec<Value>> {
        let mounts = self.baseline.since()?.into_iter().map(|mount| {
            json!({
                "Path": mount.path.display().to_string(),
                "Source": mount.source,
                "FsType": mount.fs_type,
                "ReadOnly": mount.read_only,
            })
        });
        let leftovers = verity::leftovers()?.into_iter().map(|left| {
            json!({
                "Path": disks::internal(&left.short_name).display().to_string(),
                "Source": left.node,
                "FsType": "dm-verity",
                "ReadOnly": true,
            })
        });
        Ok(mounts.chain(leftovers).collect())
    }
}

/// The agent's resident memory, in bytes.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What the agent's threads are doing, from the kernel's view.
pub(crate) fn stacks() -> String {
    let mut text = String::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        text.push_str(&format!(
            "thread {} ({})",
            task.file_name().to_string_lossy(),
            read("comm").trim_end()
        ));
        if let Some(state) = read("status")
            .lines()
            .find_map(|line| line.strip_prefix("State:"))
        {
            text.push_str(&format!(", {}", state.trim()));
        }
        text.push_str(&format!(", in {}\n", read("wchan")));
        for line in read("stack").lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

/// Carries container notifications to whichever host listens, in order.
#[derive(Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// A session that has negotiated.
    session: Option<Arc<Session>>,
    queued: Vec<ContainerNotification>,
}

impl Outbox {
    /// Sends a notification now, or when a host listens again.
    pub(crate) fn send(&self, notification: ContainerNotification) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = inner
            .session
            .as_ref()
            .is_some_and(|session| session.notify(&notification).is_ok());
        if !sent && inner.queued.len() < QUEUED {
            inner.queued.push(notification);
        }
    }

    /// Uses `session` from now on, and sends it what waited.
    pub(crate) fn attach(&self, session: Arc<Session>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = Vec::new();
        for notification in std::mem::take(&mut inner.queued) {
            if session.notify(&notification).is_err() {
                left.push(notification);
            }
        }
        inner.queued = left;
        inner.session = Some(session);
    }

    /// Forgets the session: its stream is gone.
    pub(crate) fn detach(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).session = None;
    }
}
