//! What the host does to a running container besides signalling it: it changes its limits, makes it stand still, and
//! asks whether it ran out of memory.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, RwLock, RwLockReadGuard},
};

use cofferdam_protocol::message::{OutOfMemory, WaitForOomReply};
use rustix::process::Signal;
use serde_json::Value;

use super::{
    CGROUPS, Container, Containers, Phase,
    limits::{self, freezer},
    state_error,
};
use crate::{
    error::{AgentError, Result},
    process::Process,
};

/// The cgroup all containers are in.
const POD: &str = "cofferdam";

/// What a container's control needs to remember.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Whether it stands still. Held for reading while a process is started in it: one that stood still half way
    /// could neither be finished nor given up.
    paused: RwLock<bool>,
    /// One change at a time: each reads what it may have to put back.
    changes: Mutex<()>,
}

impl Containers {
    /// Makes a running container stand still, or go on. Repeating it is no error.
    pub(crate) fn pause(&self, id: &str, paused: bool) -> Result<()> {
        let container = self.get(id)?;
        container.running()?;
        let mut state = container
            .control
            .paused
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if paused {
            freezer::freeze(&container.cgroup())?;
        } else {
            freezer::thaw(&container.cgroup())?;
        }
        *state = paused;
        Ok(())
    }

    /// Changes the limits of a container that has not ended.
    pub(crate) fn constrain(&self, id: &str, resources: &Value) -> Result<()> {
        let container = self.get(id)?;
        {
            let state = container.lock();
            match state.phase {
                Phase::Created | Phase::Started => {}
                Phase::Creating => return Err(state_error(id, "is still being created")),
                Phase::Deleting => return Err(state_error(id, "is being deleted")),
            }
            if state.init.as_ref().is_none_or(|init| init.has_exited()) {
                return Err(AgentError::AlreadyStopped(id.to_owned()));
            }
        }
        change(&container.control.changes, &container.cgroup(), resources)
    }

    /// Changes the limits of all containers together.
    pub(crate) fn constrain_pod(&self, resources: &Value) -> Result<()> {
        change(&self.pod_changes, &self.pod_cgroup(), resources)
    }

    /// The cgroup all containers are in.
    pub(crate) fn pod_cgroup(&self) -> PathBuf {
        Path::new(CGROUPS).join(POD)
    }

    /// Whether a container ran out of memory, now or before its end.
    pub(crate) fn out_of_memory(&self, id: &str) -> Result<OutOfMemory> {
        let container = self.get(id)?;
        let kills = self.oom.kills(id);
        let init = container.lock().init.clone();
        Ok(OutOfMemory {
            kills,
            init_killed: kills > 0 && init.is_some_and(|init| init.was_killed_unasked()),
        })
    }

    /// Calls `answer` once more than `seen` processes of a container have been killed for want of memory, or it has
    /// ended.
    pub(crate) fn wait_for_oom(
        &self,
        id: &str,
        seen: u64,
        answer: impl FnOnce(WaitForOomReply) + Send + 'static,
    ) -> Result<()> {
        self.get(id)?;
        self.oom.wait(id, seen, Box::new(answer))
    }

    /// Signals a process of the host's list; `false` if it is gone. A container whose first process is killed goes on
    /// if it stood still: the rest of it must be able to end too.
    pub(crate) fn signal(&self, process: &Process, signal: Signal) -> std::io::Result<bool> {
        if signal == Signal::KILL {
            process.kill_is_asked();
        }
        let delivered = self.reaper.signal(process.pid(), signal)?;
        if signal == Signal::KILL
            && let Some(container) = process.container().and_then(|id| self.get(id).ok())
            && container
                .lock()
                .init
                .as_ref()
                .is_some_and(|init| init.pid() == process.pid())
        {
            container.go_on();
        }
        Ok(delivered)
    }
}

impl Container {
    /// That it does not stand still, for as long as the guard is kept.
    pub(super) fn not_paused(&self) -> Result<RwLockReadGuard<'_, bool>> {
        let paused = self.control.paused.read().unwrap_or_else(PoisonError::into_inner);
        if *paused {
            return Err(state_error(
                &self.id,
                "is paused: no process can be started in it before it is resumed",
            ));
        }
        Ok(paused)
    }

    /// Lets it go on after it was killed, so that it can end. It does not wait for a pause that is under way.
    pub(super) fn go_on(&self) {
        let cgroup = self.cgroup();
        if freezer::is_frozen(&cgroup)
            && let Err(error) = freezer::thaw(&cgroup)
        {
            tracing::warn!(container = self.id, %error, "a killed container stands still");
        }
    }
}

fn change(changes: &Mutex<()>, cgroup: &Path, resources: &Value) -> Result<()> {
    let _alone = changes.lock().unwrap_or_else(PoisonError::into_inner);
    limits::change(cgroup, resources)
}
