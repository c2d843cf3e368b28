//! The fake guest's containers and processes.

use std::sync::Arc;

use cofferdam_protocol::{
    HResult,
    message::{
        ContainerConfig, ContainerNotification, ExecuteProcess, NotificationType, ProcessDetails,
        ProcessParameters, Properties, SignalProcess, WaitForProcess,
    },
};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::{
    FakeProgram, ProgramFor,
    container_mounts::ContainerMounts,
    control::Controlled,
    guest::is_within,
    host::Refusal,
    program::Stdio,
    vm::{State, Vm},
};

/// The first process id of the fake guest.
const FIRST_PID: u32 = 100;
/// The init of a container that was not started, which the host hears of only in a list.
const HELD_PID: u32 = 99;

/// A container of the fake guest.
#[derive(Debug)]
pub(super) struct Container {
    activity_id: String,
    bundle: String,
    command: Option<String>,
    /// Guest paths it uses: its root and its mounts' sources.
    paths: Vec<String>,
    /// What was mounted in it since it runs.
    pub(super) injected: ContainerMounts,
    pub(super) controlled: Controlled,
    life: Life,
    /// How its end will be reported.
    end: NotificationType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Created,
    Running { init: u32 },
    Exited,
}

/// A process of the fake guest.
#[derive(Debug)]
pub(super) struct Process {
    container_id: Option<String>,
    signals: mpsc::UnboundedSender<i32>,
    exit_code: watch::Sender<Option<u32>>,
}

impl State {
    pub(super) fn container(&mut self, id: &str) -> Result<&mut Container, Refusal> {
        let missing = || {
            Refusal::with(
                HResult::CONTAINER_NOT_FOUND,
                format!("there is no container {id}"),
            )
        };
        self.containers.get_mut(id).ok_or_else(missing)
    }

    /// Paths that running containers use.
    pub(super) fn paths_in_use(&self) -> Vec<String> {
        let running = self
            .containers
            .values()
            .filter(|container| container.is_running());
        running
            .flat_map(|container| {
                let injected = container.injected.values().map(|mount| &mount.source);
                container.paths.iter().chain(injected).cloned()
            })
            .collect()
    }

    /// How many containers run.
    pub(super) fn running_containers(&self) -> usize {
        self.containers
            .values()
            .filter(|container| container.is_running())
            .count()
    }

    /// Whether a process of the container lives.
    fn process(&self, process_id: u32) -> Result<&Process, Refusal> {
        self.processes
            .get(&process_id)
            .ok_or_else(|| Refusal::with(HResult::NOT_FOUND, format!("there is no process {process_id}")))
    }

    pub(super) fn create(
        &mut self,
        id: &str,
        activity_id: &str,
        config: &ContainerConfig,
    ) -> Result<(), Refusal> {
        if self.containers.contains_key(id) {
            return Err(Refusal::with(
                HResult::CONTAINER_EXISTS,
                format!("container {id} exists"),
            ));
        }
        let spec = config.oci_specification.as_ref().unwrap_or(&Value::Null);
        let bundle = config.oci_bundle_path.clone();
        let given = format!("{bundle}/mounts");
        let root = spec["root"]["path"].as_str();
        let mounts = spec["mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
        let sources = mounts.iter().filter_map(|mount| mount["source"].as_str());
        let sources = sources.filter(|source| !bundle.is_empty() && is_within(source, &given));
        let paths: Vec<String> = root.into_iter().chain(sources).map(str::to_owned).collect();
        if let Some(missing) = paths.iter().find(|path| !self.mounts.covers(path)) {
            return Err(Refusal::violation(format!(
                "container {id} needs {missing}, where nothing is mounted"
            )));
        }
        let command = spec["process"]["args"][0].as_str().map(str::to_owned);
        let (activity_id, life) = (activity_id.to_owned(), Life::Created);
        let end = NotificationType::UnexpectedExit;
        self.containers.insert(
            id.to_owned(),
            Container {
                activity_id,
                bundle,
                command,
                paths,
                injected: ContainerMounts::new(),
                controlled: Controlled::new(&spec["linux"]["resources"]),
                life,
                end,
            },
        );
        Ok(())
    }

    pub(super) fn signal(&mut self, container_id: &str, request: &SignalProcess) -> Result<(), Refusal> {
        self.container(container_id)?;
        let process = self.process(request.process_id)?;
        if process.exit_code.borrow().is_some() {
            let message = format!("process {} has exited", request.process_id);
            return Err(Refusal::with(HResult::NOT_FOUND, message));
        }
        // A process that exits this very moment takes no signal any more.
        let _ = process.signals.send(request.signal());
        Ok(())
    }

    /// Ends a container's init with `signal`. `Some` has the notification of a container that never ran.
    pub(super) fn shut_down(
        &mut self,
        container_id: &str,
        signal: i32,
        end: NotificationType,
    ) -> Result<Option<ContainerNotification>, Refusal> {
        let container = self.container(container_id)?;
        match container.life {
            Life::Created => {
                container.end = end;
                Ok(self.exit(container_id))
            }
            Life::Running { init } => {
                container.end = end;
                let _ = self.process(init)?.signals.send(signal);
                Ok(None)
            }
            Life::Exited => Err(Refusal::with(
                HResult::ALREADY_STOPPED,
                format!("container {container_id} has stopped"),
            )),
        }
    }

    /// Signals a container's first process, which must run.
    pub(super) fn kill_init(&mut self, container_id: &str, signal: i32) -> Result<(), Refusal> {
        let Life::Running { init } = self.container(container_id)?.life else {
            let message = format!("container {container_id} is not running");
            return Err(Refusal::with(HResult::INVALID_STATE, message));
        };
        // One that exits this very moment takes no signal any more.
        let _ = self.process(init)?.signals.send(signal);
        Ok(())
    }

    /// Marks a container as exited. `Some` has its one notification.
    fn exit(&mut self, container_id: &str) -> Option<ContainerNotification> {
        let container = self.containers.get_mut(container_id)?;
        if container.life == Life::Exited {
            return None;
        }
        container.life = Life::Exited;
        // They were its namespace's, and that is gone.
        container.injected.clear();
        container.controlled.end();
        Some(ContainerNotification {
            container_id: container_id.to_owned(),
            activity_id: container.activity_id.clone(),
            r#type: container.end,
            ..Default::default()
        })
    }

    /// Deletes a container. `Some` has the notification of one that never ran.
    pub(super) fn delete(&mut self, container_id: &str) -> Result<Option<ContainerNotification>, Refusal> {
        let container = self.container(container_id)?;
        if let Life::Running { .. } = container.life {
            return Err(Refusal::with(
                HResult::INVALID_STATE,
                format!("container {container_id} is running"),
            ));
        }
        let bundle = container.bundle.clone();
        if let Some(mount) = self
            .mounts
            .0
            .keys()
            .find(|path| !bundle.is_empty() && is_within(path, &bundle))
        {
            let message = format!("container {container_id} is deleted while {mount} is mounted");
            return Err(Refusal::violation(message));
        }
        let notification = self.exit(container_id);
        self.containers.remove(container_id);
        self.processes
            .retain(|_, process| process.container_id.as_deref() != Some(container_id));
        Ok(notification)
    }

    pub(super) fn properties(&mut self, container_id: &str) -> Result<Properties, Refusal> {
        let container = self.container(container_id)?;
        let is_held = matches!(container.life, Life::Created);
        let out_of_memory = container.controlled.out_of_memory();
        let mine = |process: &Process| {
            process.container_id.as_deref() == Some(container_id) && process.exit_code.borrow().is_none()
        };
        let processes = self.processes.iter().filter(|(_, process)| mine(process));
        let held = is_held.then_some(HELD_PID);
        let process_list = processes
            .map(|(pid, _)| *pid)
            .chain(held)
            .map(|process_id| ProcessDetails { process_id })
            .collect();
        Ok(Properties {
            process_list,
            metrics: Some(serde_json::json!({"pids": {"current": 1}})),
            out_of_memory: Some(out_of_memory),
            ..Properties::default()
        })
    }

    fn program(&self, init_of: Option<&str>, command: Option<&str>) -> FakeProgram {
        let init = init_of.map(|id| ProgramFor::Init(id.to_owned()));
        let command = command.map(|name| ProgramFor::Command(name.to_owned()));
        for wanted in [init, command, Some(ProgramFor::Anything)].into_iter().flatten() {
            if let Some((_, program)) = self.programs.iter().rev().find(|(which, _)| *which == wanted) {
                return program.clone();
            }
        }
        FakeProgram::exits(0)
    }

    /// Registers a process and marks its container as running, if it is the init.
    fn add_process(
        &mut self,
        container_id: Option<&str>,
        is_init: bool,
    ) -> Result<(u32, mpsc::UnboundedReceiver<i32>), Refusal> {
        let process_id = self
            .processes
            .keys()
            .next_back()
            .map_or(FIRST_PID, |last| last + 1);
        if let Some(id) = container_id {
            let container = self.container(id)?;
            container.check_life(id, is_init)?;
            if is_init {
                container.life = Life::Running { init: process_id };
            }
        }
        let (signals, receiver) = mpsc::unbounded_channel();
        let container_id = container_id.map(str::to_owned);
        let process = Process {
            container_id,
            signals,
            exit_code: watch::channel(None).0,
        };
        self.processes.insert(process_id, process);
        Ok((process_id, receiver))
    }
}

impl Container {
    pub(super) fn is_running(&self) -> bool {
        matches!(self.life, Life::Running { .. })
    }

    pub(super) fn has_exited(&self) -> bool {
        self.life == Life::Exited
    }

    fn check_life(&self, id: &str, is_init: bool) -> Result<(), Refusal> {
        if self.controlled.frozen {
            return Err(Refusal::with(
                HResult::INVALID_STATE,
                format!("container {id} is paused"),
            ));
        }
        match (self.life, is_init) {
            (Life::Created, true) | (Life::Running { .. }, false) => Ok(()),
            (life, _) => Err(Refusal::with(
                HResult::INVALID_STATE,
                format!("container {id} is not ready: {life:?}"),
            )),
        }
    }
}

/// Starts a process; `notify` sends the notification when a container's init is at its end.
pub(super) fn execute(
    vm: &Arc<Vm>,
    container_id: Option<&str>,
    request: &ExecuteProcess,
    notify: impl Fn(ContainerNotification) + Send + Sync + 'static,
) -> Result<u32, Refusal> {
    let parameters = &request.settings.process_parameters.0;
    let is_init = container_id.is_some() && parameters.oci_process.is_none();
    let command = {
        let mut state = vm.state();
        match container_id {
            Some(id) => {
                let container = state.container(id)?;
                container.check_life(id, is_init)?;
                if is_init {
                    container.command.clone()
                } else {
                    command_of(parameters)
                }
            }
            None => command_of(parameters),
        }
    };
    let mut stdio = dial_stdio(vm, request)?;
    let (process_id, mut signals, program) = {
        let mut state = vm.state();
        let program = state.program(container_id.filter(|_| is_init), command.as_deref());
        let (process_id, signals) = state.add_process(container_id, is_init)?;
        (process_id, signals, program)
    };
    let (part, container_id) = (vm.clone(), container_id.map(str::to_owned));
    vm.spawn(async move {
        let exit_code = program.run(&mut stdio, &mut signals).await;
        if let Some(process) = part.state().processes.get(&process_id) {
            process.exit_code.send_replace(Some(exit_code));
        }
        stdio.drain().await;
        let exited = container_id
            .filter(|_| is_init)
            .and_then(|id| part.state().exit(&id));
        if let Some(notification) = exited {
            notify(notification);
        }
    });
    Ok(process_id)
}

fn command_of(parameters: &ProcessParameters) -> Option<String> {
    let oci = parameters
        .oci_process
        .as_ref()
        .and_then(|process| process["args"][0].as_str());
    oci.or(parameters.command_args.first().map(String::as_str))
        .map(str::to_owned)
}

/// Dials standard input, output and error, in this order, where they are wanted.
fn dial_stdio(vm: &Vm, request: &ExecuteProcess) -> Result<Stdio, Refusal> {
    let parameters = &request.settings.process_parameters.0;
    let ports = &request.settings.vsock_stdio_relay_settings;
    let dial = |wanted: bool, port: Option<u32>| match (wanted, port) {
        (false, _) => Ok(None),
        (true, None) => Err(Refusal::violation("a stream is wanted without a port")),
        (true, Some(port)) => match vm.dial(port) {
            Some(stream) => Ok(Some(stream)),
            None => Err(Refusal::plain(format!(
                "dialling the host's port {port}: connection refused"
            ))),
        },
    };
    Ok(Stdio {
        stdin: dial(parameters.create_std_in_pipe, ports.std_in)?,
        stdout: dial(parameters.create_std_out_pipe, ports.std_out)?,
        stderr: dial(parameters.create_std_err_pipe, ports.std_err)?,
    })
}

/// Waits until a process has exited, and returns its exit code.
pub(super) async fn wait(vm: &Vm, request: &WaitForProcess) -> Result<u32, Refusal> {
    let mut exit_code = vm.state().process(request.process_id)?.exit_code.subscribe();
    let exited = async {
        match exit_code.wait_for(Option::is_some).await {
            Ok(code) => Ok(code.unwrap_or_default()),
            Err(_) => Err(Refusal::with(
                HResult::NOT_FOUND,
                "the process's container was deleted",
            )),
        }
    };
    match request.timeout_in_ms {
        cofferdam_protocol::message::INFINITE_TIMEOUT_MS => exited.await,
        limit_ms => {
            match tokio::time::timeout(std::time::Duration::from_millis(limit_ms.into()), exited).await {
                Ok(code) => code,
                Err(_) => Err(Refusal::with(HResult::TIMEOUT, "the process runs on")),
            }
        }
    }
}
