//! The containers of one VM by name, and what can be done with them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cofferdam_container::{Handle, Mounts, limit_pod};
use cofferdam_protocol::message::{Metrics, PropertyType};
use cofferdam_vm::UtilityVm;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    Endpoints, Event, Exit, NewContainer, PodError, PodLimits, ProcessName, Status, Streams,
    container::{Container, Work},
    endpoints::Opened,
    names,
    process::{Held, Patience, Process},
};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// The last of the real-time signals (signal(7)).
const LAST_SIGNAL: i32 = 64;

/// The status of a process that could not be started: what a shell says of a program it cannot run.
const NEVER_RAN: u8 = 127;

/// The containers of one utility VM.
pub struct Pod {
    vm: Arc<UtilityVm>,
    namespace: String,
    /// `None` while it is being created or deleted: the name is taken, and there is nothing to be had.
    containers: Mutex<BTreeMap<String, Option<Arc<Container>>>>,
    events: UnboundedSender<Event>,
    /// What they may use together. Held over the guest's answer, so that two creations agree on it.
    limits: tokio::sync::Mutex<PodLimits>,
}

/// A process as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessState {
    /// Its state.
    pub status: Status,
    /// The far ends of its streams.
    pub endpoints: Endpoints,
    /// Its container's bundle.
    pub bundle: std::path::PathBuf,
}

impl Pod {
    /// A pod without containers in this VM, and where its events arrive.
    #[must_use]
    pub fn new(vm: Arc<UtilityVm>) -> (Arc<Self>, UnboundedReceiver<Event>) {
        Self::in_namespace(vm, "")
    }

    /// The same in a namespace of containerd, which loggers are told.
    #[must_use]
    pub fn in_namespace(
        vm: Arc<UtilityVm>,
        namespace: impl Into<String>,
    ) -> (Arc<Self>, UnboundedReceiver<Event>) {
        let (events, received) = unbounded_channel();
        let pod = Self {
            vm,
            namespace: namespace.into(),
            containers: Mutex::default(),
            events,
            limits: tokio::sync::Mutex::default(),
        };
        (Arc::new(pod), received)
    }

    /// Limits what its containers may use together. A container that has no limit of its own lifts that limit again: see
    /// [`PodLimits`].
    ///
    /// # Errors
    /// The guest's.
    pub async fn limit(&self, limits: PodLimits) -> Result<(), PodError> {
        let mut held = self.limits.lock().await;
        if let Some(resources) = limits.resources() {
            limit_pod(&self.vm, &resources).await?;
        }
        *held = limits;
        Ok(())
    }

    async fn make_room_for(&self, new: &NewContainer<'_>) -> Result<(), PodError> {
        let mut limits = self.limits.lock().await;
        if let Some((left, change)) = limits.without(new.spec) {
            tracing::info!(%change, "container {} is not in the pod's limits", new.id);
            limit_pod(&self.vm, &change).await?;
            *limits = left;
        }
        Ok(())
    }

    /// Its VM.
    #[must_use]
    pub fn vm(&self) -> &Arc<UtilityVm> {
        &self.vm
    }

    pub(crate) fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Option<Arc<Container>>>> {
        // Each entry is replaced as a whole.
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn container(&self, id: &str) -> Result<Arc<Container>, PodError> {
        let found = self.containers().get(id).cloned().flatten();
        found.ok_or_else(|| PodError::NoContainer(id.to_owned()))
    }

    fn process(&self, name: &ProcessName) -> Result<(Arc<Container>, Arc<Process>), PodError> {
        let container = self.container(&name.container)?;
        let process = container.process(name)?;
        Ok((container, process))
    }

    fn tell(&self, event: Event) {
        // Without anybody who listens there is nobody to tell.
        let _ = self.events.send(event);
    }

    /// The names of its containers, those included that are just being created or deleted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.containers().keys().cloned().collect()
    }

    /// Whether a container could be created under this name.
    ///
    /// # Errors
    /// [`PodError::Name`]; [`PodError::Exists`].
    pub fn takes(&self, id: &str) -> Result<(), PodError> {
        names::check("container", id)?;
        match self.containers().contains_key(id) {
            true => Err(PodError::Exists(ProcessName::init(id))),
            false => Ok(()),
        }
    }

    /// Creates a container: everything it needs is in the VM afterwards, and its init is held.
    ///
    /// # Errors
    /// [`PodError::Name`]; [`PodError::Exists`]; those of the plan, the allocation and the guest, after which the VM holds nothing for it.
    pub async fn create(&self, new: NewContainer<'_>) -> Result<(), PodError> {
        names::check("container", new.id)?;
        let id = new.id.to_owned();
        {
            let mut containers = self.containers();
            if containers.contains_key(&id) {
                return Err(PodError::Exists(ProcessName::init(id)));
            }
            containers.insert(id.clone(), None);
        }
        // Gives the name back, on whatever way this ends early.
        let reserved = Reserved { pod: self, id: &id };
        let event = Event::Created {
            container: id.clone(),
            bundle: new.bundle.to_owned(),
            endpoints: new.endpoints.clone(),
        };
        self.make_room_for(&new).await?;
        let container = Container::create(&self.vm, new).await?;
        self.containers().insert(id.clone(), Some(Arc::new(container)));
        std::mem::forget(reserved);
        self.tell(event);
        Ok(())
    }

    /// Starts a container's init, or a further process, with the streams it was made with.
    ///
    /// # Errors
    /// [`PodError::State`] where it was started before; those of the guest and the streams, after which it has stopped.
    pub async fn start(&self, name: &ProcessName) -> Result<(), PodError> {
        self.start_on(name, None).await
    }

    /// Starts it with these streams. Its exit is told when all of its output has been handed over.
    ///
    /// # Errors
    /// As for [`Pod::start`].
    pub async fn start_with(&self, name: &ProcessName, streams: Streams) -> Result<(), PodError> {
        self.start_on(name, Some(streams)).await
    }

    async fn start_on(&self, name: &ProcessName, streams: Option<Streams>) -> Result<(), PodError> {
        let (container, process) = self.process(name)?;
        let size = process.begin()?;
        let patience = match streams {
            None => Patience::Grace,
            Some(_) => Patience::Endless,
        };
        let started = async {
            let opened = match streams {
                None => process.endpoints.open(&self.namespace, name).await?,
                Some(streams) => streams.into(),
            };
            let Opened { stdio, gate, logger } = opened;
            let live = match name.exec {
                None => container.start_init(stdio, size).await?,
                Some(_) => container.start_exec(&process, stdio, size).await?,
            };
            Ok::<_, PodError>((live, Held { gate, logger }))
        };
        let (live, held) = started.await.inspect_err(|_| {
            process.never_ran(NEVER_RAN);
        })?;
        if name.exec.is_none() {
            self.watch_memory(&name.container, &live.handle());
        }
        process.has_started();
        self.tell(Event::Started { name: name.clone() });
        let (events, ended) = (self.events.clone(), name.clone());
        process.runs(live, held, patience, move |exit| {
            // As in `tell`.
            let _ = events.send(Event::Exited { name: ended, exit });
        });
        Ok(())
    }

    /// The mounts a container is given while it runs.
    ///
    /// # Errors
    /// That there is no such container.
    pub fn mounts(&self, id: &str) -> Result<Arc<Mounts>, PodError> {
        Ok(self.container(id)?.mounts.clone())
    }

    /// Tells each time a container runs out of memory, until it has ended.
    fn watch_memory(&self, id: &str, handle: &Handle) {
        let (events, container) = (self.events.clone(), id.to_owned());
        let mut watched = match handle.oom() {
            Ok(watched) => watched,
            Err(error) => return tracing::debug!(%error, "memory is not watched"),
        };
        tokio::spawn(async move {
            while let Ok(Some(kills)) = watched.next().await {
                let container = container.clone();
                // As in `tell`.
                let _ = events.send(Event::OutOfMemory { container, kills });
            }
        });
    }

    /// Adds a further process to a running container. `process` is the OCI spec's object of that name.
    ///
    /// # Errors
    /// [`PodError::Name`]; [`PodError::State`] where the container does not run; [`PodError::Exists`], for the container's own
    /// name too: by it alone its init is told from others in events.
    pub fn exec(&self, name: &ProcessName, process: Value, endpoints: Endpoints) -> Result<(), PodError> {
        self.add_exec(name, Work::Inside(process), endpoints)
    }

    /// Adds a process that copies files from a container's root or to it, over its standard streams. It is the agent's,
    /// runs outside of the container, and is started, waited for, told of and deleted as one of [`Pod::exec`]. `order` is
    /// the agent's to read.
    ///
    /// # Errors
    /// [`PodError::State`] where the container has ended; [`PodError::Exists`].
    pub fn copy(&self, name: &ProcessName, order: String, endpoints: Endpoints) -> Result<(), PodError> {
        self.add_exec(name, Work::Copy(order), endpoints)
    }

    fn add_exec(&self, name: &ProcessName, work: Work, endpoints: Endpoints) -> Result<(), PodError> {
        let container = self.container(&name.container)?;
        let exec = name.exec.as_deref().unwrap_or_default();
        names::check("process", exec)?;
        if exec == name.container {
            return Err(PodError::Exists(ProcessName::init(exec)));
        }
        container.add_exec(exec, work, endpoints)?;
        self.tell(Event::ExecAdded { name: name.clone() });
        Ok(())
    }

    /// Sends a signal to a process; with `all`, to every process of its container. Signal 0 only asks whether it would get one.
    ///
    /// # Errors
    /// [`PodError::NoSignal`]; [`PodError::Finished`] where it has ended; [`PodError::State`] where it was not started and the signal is not one
    /// that ends it; the guest's.
    pub async fn kill(&self, name: &ProcessName, signal: i32, all: bool) -> Result<(), PodError> {
        let (container, process) = self.process(name)?;
        if !(0..=LAST_SIGNAL).contains(&signal) {
            return Err(PodError::NoSignal(signal));
        }
        if process.status() == Status::Created {
            return self.kill_unstarted(&container, &process, signal).await;
        }
        if process.status() == Status::Starting {
            return Err(process.unfit("it takes signals once it runs"));
        }
        let handle = process.handle()?;
        if signal == 0 {
            return Ok(());
        }
        // The kernel kills everything in the container with its init.
        if all && signal != SIGKILL {
            for pid in self.pids(&name.container).await? {
                self.vm
                    .bridge()
                    .signal_process(&name.container, pid, Some(signal))
                    .await?;
            }
            return Ok(());
        }
        match handle.signal(signal).await? {
            true => Ok(()),
            false => Err(PodError::Finished(name.clone())),
        }
    }

    async fn kill_unstarted(
        &self,
        container: &Container,
        process: &Process,
        signal: i32,
    ) -> Result<(), PodError> {
        if process.name.exec.is_some() || !matches!(signal, SIGKILL | SIGTERM) {
            return Err(process.unfit("it takes signals once it runs"));
        }
        container.end_unstarted().await?;
        let status = 128 + u8::try_from(signal).unwrap_or(0);
        let exit = process.never_ran(status);
        let name = process.name.clone();
        self.tell(Event::Exited { name, exit });
        Ok(())
    }

    /// Gives a process's terminal a size.
    ///
    /// # Errors
    /// [`PodError::NoTerminal`]; the guest's.
    pub async fn resize(&self, name: &ProcessName, rows: u16, columns: u16) -> Result<(), PodError> {
        self.process(name)?.1.resize(rows, columns).await
    }

    /// Ends a process's input once everything that was sent has been read.
    ///
    /// # Errors
    /// That there is no such process.
    pub fn close_stdin(&self, name: &ProcessName) -> Result<(), PodError> {
        self.process(name)?.1.close_stdin();
        Ok(())
    }

    /// Waits until a process has ended.
    ///
    /// # Errors
    /// That there is no such process.
    pub async fn wait(&self, name: &ProcessName) -> Result<Exit, PodError> {
        Ok(self.process(name)?.1.exited().await)
    }

    /// How a process is.
    ///
    /// # Errors
    /// That there is no such process.
    pub fn state(&self, name: &ProcessName) -> Result<ProcessState, PodError> {
        let (container, process) = self.process(name)?;
        Ok(ProcessState {
            status: process.status(),
            endpoints: process.endpoints.clone(),
            bundle: container.bundle.clone(),
        })
    }

    /// The process numbers in a container, as the guest counts them.
    ///
    /// # Errors
    /// That there is no such container; the guest's.
    pub async fn pids(&self, id: &str) -> Result<Vec<u32>, PodError> {
        self.container(id)?;
        let asked = self.vm.bridge().get_properties(id, &[PropertyType::ProcessList]);
        let list = asked.await?.process_list;
        Ok(list.into_iter().map(|process| process.process_id).collect())
    }

    /// What a container has used.
    ///
    /// # Errors
    /// That there is no such container; the guest's.
    pub async fn statistics(&self, id: &str) -> Result<Metrics, PodError> {
        self.container(id)?;
        Ok(self.vm.bridge().statistics(id).await?)
    }

    /// Makes everything in a container stand still.
    ///
    /// # Errors
    /// [`PodError::State`] where it does not run; the guest's.
    pub async fn pause(&self, id: &str) -> Result<(), PodError> {
        let init = self.container(id)?.init.clone();
        if init.status() != Status::Running {
            return Err(init.unfit("only a running container can be paused"));
        }
        init.handle()?.pause().await?;
        if init.turns(Status::Running, Status::Paused) {
            let container = id.to_owned();
            self.tell(Event::Paused { container });
        }
        Ok(())
    }

    /// Lets a container go on.
    ///
    /// # Errors
    /// [`PodError::State`] where it is not paused; the guest's.
    pub async fn resume(&self, id: &str) -> Result<(), PodError> {
        let init = self.container(id)?.init.clone();
        if init.status() != Status::Paused {
            return Err(init.unfit("only a paused container can be resumed"));
        }
        init.handle()?.resume().await?;
        if init.turns(Status::Paused, Status::Running) {
            let container = id.to_owned();
            self.tell(Event::Resumed { container });
        }
        Ok(())
    }

    /// Changes a container's limits: `resources` is `linux.resources` of the OCI runtime specification. What it does not
    /// name stays as it is.
    ///
    /// # Errors
    /// That there is no such container; the guest's, with the member that cannot be had.
    pub async fn update(&self, id: &str, resources: &Value) -> Result<(), PodError> {
        self.container(id)?;
        Ok(self.vm.bridge().update_container(id, resources).await?)
    }

    /// Gives back what a process that does not run holds; with a container's init, everything the container held. It stays
    /// known. Harmless when repeated; after an error another try goes on with what is left.
    ///
    /// # Errors
    /// [`PodError::State`] while it runs; [`PodError::Release`] and the guest's.
    pub async fn release(&self, name: &ProcessName) -> Result<Exit, PodError> {
        let (container, process) = self.process(name)?;
        let exit = match process.status() {
            Status::Stopped(exit) => exit,
            Status::Created => process_never_started(&container, &process).await?,
            Status::Starting | Status::Running | Status::Paused => {
                return Err(process.unfit("stop it first"));
            }
        };
        process.finish().await;
        if name.exec.is_none() {
            container.end_copies().await;
            for exec in container.execs() {
                exec.finish().await;
            }
            container.release().await?;
        }
        Ok(exit)
    }

    /// Deletes a process that does not run: [`Pod::release`], and it is known no longer.
    ///
    /// # Errors
    /// As for [`Pod::release`].
    pub async fn delete(&self, name: &ProcessName) -> Result<Exit, PodError> {
        let exit = self.release(name).await?;
        match &name.exec {
            Some(exec) => self.container(&name.container)?.forget(exec),
            None => drop(self.containers().remove(&name.container)),
        }
        let name = name.clone();
        self.tell(Event::Deleted { name, exit });
        Ok(exit)
    }
}

async fn process_never_started(container: &Container, process: &Process) -> Result<Exit, PodError> {
    if process.name.exec.is_none() {
        container.end_unstarted().await?;
    }
    Ok(process.never_ran(0))
}

/// A name that is taken until its container is there.
struct Reserved<'a> {
    pod: &'a Pod,
    id: &'a str,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.pod.containers().remove(self.id);
    }
}
