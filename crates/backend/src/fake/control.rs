//! The fake guest's limits, freezer and memory events: nothing is limited, but what was asked for can be looked at.

use cofferdam_protocol::{
    HResult,
    message::{OutOfMemory, SIGKILL, WaitForOom, WaitForOomReply},
    settings::Constraints,
};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::{
    host::Refusal,
    vm::{State, Vm},
};

/// What a container's control remembers.
#[derive(Debug)]
pub(super) struct Controlled {
    pub(super) frozen: bool,
    pub(super) limits: Value,
    init_killed: bool,
    oom: watch::Sender<WaitForOomReply>,
}

impl Controlled {
    /// A container under the limits of its spec.
    pub(super) fn new(limits: &Value) -> Self {
        Self {
            frozen: false,
            limits: limits.clone(),
            init_killed: false,
            oom: watch::channel(WaitForOomReply::default()).0,
        }
    }

    /// The container has ended.
    pub(super) fn end(&mut self) {
        self.frozen = false;
        self.oom.send_modify(|told| told.ended = true);
    }

    pub(super) fn out_of_memory(&self) -> OutOfMemory {
        OutOfMemory {
            kills: self.oom.borrow().kills,
            init_killed: self.init_killed,
        }
    }
}

impl State {
    /// Kills a process of the container for want of memory: its first one, or one that nobody knows of.
    pub(super) fn run_out_of_memory(&mut self, container_id: &str, init: bool) -> Result<(), Refusal> {
        let container = self.container(container_id)?;
        container.controlled.oom.send_modify(|told| told.kills += 1);
        if init {
            container.controlled.init_killed = true;
            self.kill_init(container_id, SIGKILL)?;
        }
        Ok(())
    }

    pub(super) fn constrain(&mut self, container_id: &str, limits: &Constraints) -> Result<(), Refusal> {
        let container = self.container(container_id)?;
        if container.has_exited() {
            let message = format!("container {container_id} has stopped");
            return Err(Refusal::with(HResult::ALREADY_STOPPED, message));
        }
        merge(&mut container.controlled.limits, &limits.linux)
    }

    pub(super) fn constrain_pod(&mut self, limits: &Constraints) -> Result<(), Refusal> {
        merge(&mut self.pod_limits, &limits.linux)
    }

    pub(super) fn freeze(&mut self, container_id: &str, frozen: bool) -> Result<(), Refusal> {
        let container = self.container(container_id)?;
        if !container.is_running() {
            let message = format!("container {container_id} is not running");
            return Err(Refusal::with(HResult::INVALID_STATE, message));
        }
        container.controlled.frozen = frozen;
        Ok(())
    }
}

/// Waits for the kernel to kill more of a container's processes than the host knows of, or for its end.
pub(super) async fn wait_for_oom(
    vm: &Vm,
    container_id: &str,
    request: &WaitForOom,
) -> Result<WaitForOomReply, Refusal> {
    let mut told = vm.state().container(container_id)?.controlled.oom.subscribe();
    let due = told
        .wait_for(|told| told.ended || told.kills > request.kills_seen)
        .await;
    due.map(|told| *told).map_err(|_| {
        Refusal::with(
            HResult::CONTAINER_NOT_FOUND,
            format!("container {container_id} was deleted"),
        )
    })
}

/// Takes over what `new` names.
fn merge(limits: &mut Value, new: &Value) -> Result<(), Refusal> {
    let Value::Object(new) = new else {
        return Err(Refusal::with(
            HResult::INVALID_ARGUMENT,
            "linux.resources: it is no object",
        ));
    };
    if !limits.is_object() {
        *limits = Value::Object(Map::new());
    }
    for (member, value) in new {
        match limits.get_mut(member) {
            Some(inner) if inner.is_object() && value.is_object() => merge(inner, value)?,
            _ => limits[member] = value.clone(),
        }
    }
    Ok(())
}
