//! Containers: their lives from Create to DeleteContainerState (GCS bridge protocol §6).

mod console;
mod control;
mod further;
mod hot;
mod limits;
mod names;
mod namespaces;
mod removal;
pub(crate) mod sandbox;
pub(crate) mod spec;
pub(crate) mod stats;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    time::Duration,
};

use cofferdam_mounting::mount_point;
use cofferdam_protocol::message::{
    ContainerConfig, ContainerNotification, NotificationType, ProcessParameters, SchemaVersion,
};
use console::{set_initial_size, set_size};
use control::Control;
use hot::HotMounts;
use limits::oom::OomWatch;
use names::{check_id, write_document};
use removal::remove_cgroup;
use rustix::process::Signal;
use sandbox::Staged;
use serde_json::Value;

use crate::{
    error::{AgentError, During, Result},
    network::Network,
    process::{
        Process,
        reaper::Reaper,
        stdio::{self, ProcessEnds, Streams},
    },
    runtime::Runtime,
    storage::path::guest_path,
};

/// Root of the cgroup hierarchy.
const CGROUPS: &str = "/sys/fs/cgroup";
/// How long the end of a killed first process may take.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Tells the host that a container has ended.
pub(crate) type Notify = Arc<dyn Fn(ContainerNotification) + Send + Sync>;

/// One container.
pub(crate) struct Container {
    id: String,
    activity_id: String,
    bundle: PathBuf,
    scratch: Option<PathBuf>,
    /// Whose `sandbox://` directories its mounts mean.
    sandbox_root: OnceLock<PathBuf>,
    hot: HotMounts,
    control: Control,
    oom: Arc<OomWatch>,
    state: Mutex<State>,
    notify: Notify,
}

struct State {
    phase: Phase,
    /// Set from the start of the runtime's create.
    init: Option<Arc<Process>>,
    /// The ends of init's streams, until the host asks for it to run.
    ends: Option<ProcessEnds>,
    /// The document of init's process: what a further process inherits.
    process: Value,
    /// Whether its HOME was said, and does not follow from its user.
    own_home: bool,
    /// What the host asked for last; says how the end is reported.
    asked: NotificationType,
    /// Whether init has ended and its output is out.
    done: bool,
    notified: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Creating,
    Created,
    Started,
    Deleting,
}

/// All containers.
pub(crate) struct Containers {
    table: Mutex<HashMap<String, Arc<Container>>>,
    runtime: Runtime,
    reaper: Arc<Reaper>,
    oom: Arc<OomWatch>,
    /// One change of the limits of all at a time.
    pod_changes: Mutex<()>,
    network: Arc<Network>,
    notify: Notify,
}

impl Containers {
    /// No containers. Starts the thread that hears of their memory.
    pub(crate) fn new(reaper: Arc<Reaper>, network: Arc<Network>, notify: Notify) -> io::Result<Self> {
        Ok(Self {
            table: Mutex::default(),
            runtime: Runtime::new(Arc::clone(&reaper)),
            reaper,
            oom: OomWatch::start()?,
            pod_changes: Mutex::default(),
            network,
            notify,
        })
    }

    /// The container named `id`.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Container>> {
        self.table()
            .get(id)
            .cloned()
            .ok_or_else(|| AgentError::UnknownContainer(id.to_owned()))
    }

    /// Creates container `id`; its first process is held. From now on the host is owed one notification.
    pub(crate) fn create(&self, id: &str, activity_id: &str, config: ContainerConfig) -> Result<()> {
        check_id(id)?;
        let version = config.schema_version.unwrap_or(SchemaVersion::V2_1);
        if version < SchemaVersion::V2_1 {
            return Err(AgentError::SchemaVersion(format!(
                "{}.{}",
                version.major, version.minor
            )));
        }
        let bundle = guest_path(&config.oci_bundle_path)?;
        let scratch = match config.scratch_dir_path.as_str() {
            "" => None,
            path => Some(guest_path(path)?),
        };
        let spec = config
            .oci_specification
            .ok_or_else(|| AgentError::Invalid("the container has no OciSpecification".into()))?;
        let container = Arc::new(Container {
            id: id.to_owned(),
            activity_id: activity_id.to_owned(),
            bundle,
            scratch,
            sandbox_root: OnceLock::new(),
            hot: HotMounts::default(),
            control: Control::default(),
            oom: Arc::clone(&self.oom),
            state: Mutex::new(State {
                phase: Phase::Creating,
                init: None,
                ends: None,
                process: Value::Null,
                own_home: false,
                asked: NotificationType::UnexpectedExit,
                done: false,
                notified: false,
            }),
            notify: Arc::clone(&self.notify),
        });
        {
            let mut table = self.table();
            if table.contains_key(id) {
                return Err(AgentError::ContainerExists(id.to_owned()));
            }
            table.insert(id.to_owned(), Arc::clone(&container));
        }
        let outcome = self.create_held(&container, spec);
        match outcome {
            Ok(()) => container.created(),
            Err(_) => {
                self.abandon(&container);
                self.table().remove(id);
            }
        }
        outcome
    }

    fn create_held(&self, container: &Arc<Container>, spec: Value) -> Result<()> {
        let id = container.id.as_str();
        let (sandbox_root, sandbox_init) = match spec::sandbox_id(&spec) {
            None => (container.bundle.clone(), None),
            Some(sandbox) => match self.get(sandbox) {
                Ok(sandbox) => (sandbox.bundle.clone(), sandbox.running_init()),
                Err(_) => {
                    check_id(sandbox)?;
                    (sandbox::default_root(sandbox), None)
                }
            },
        };
        let sandbox_root = container.sandbox_root.get_or_init(|| sandbox_root);
        let mut completed = spec::complete(id, spec, sandbox_init)?;
        for line in &completed.removed {
            tracing::warn!(container = id, "not used from the container's document: {line}");
        }
        // The binds end with this function: by then the container has its own.
        let mut staged = Staged::default();
        for (index, path) in &completed.sandbox_mounts {
            let place = staged.bind(id, *index, &sandbox::resolve(sandbox_root, path)?)?;
            completed.spec["mounts"][*index]["source"] = place.display().to_string().into();
        }
        let own_home = spec::has_home(&completed.spec);
        // Its root filesystem is mounted by now, and nothing runs in it.
        cofferdam_rootfs::settle(&mut completed.spec)?;
        self.network.settle(&container.bundle, &mut completed.spec)?;
        write_document(&container.bundle, &completed.spec)?;

        let on_done = Arc::clone(container);
        let init = Process::new(Some(id.to_owned()), Some(Box::new(move |_| on_done.done())))
            .during(|| "making an event".into())?;
        {
            let mut state = container.lock();
            state.init = Some(Arc::clone(&init));
            state.process = completed.spec["process"].clone();
            state.own_home = own_home;
        }
        let terminal = spec::wants_console(&completed.spec);
        let ends = self.runtime.create(id, &container.bundle, terminal, &init)?;
        // Nothing of the container's own has run yet.
        for line in limits::set_at_creation(&container.cgroup(), &completed.limits)? {
            tracing::warn!(
                container = id,
                "a limit of the container's document does not hold: {line}"
            );
        }
        self.oom.add(id, &container.cgroup());
        if init.is_done() {
            // Nobody was told of its end.
            self.oom.ended(id);
        }
        if let ProcessEnds::Console(console) = &ends {
            set_initial_size(console, &completed.spec["process"]);
        }
        container.lock().ends = Some(ends);
        Ok(())
    }

    /// Undoes a failed create so far as it got.
    fn abandon(&self, container: &Container) {
        let init = container.lock().init.clone();
        if let Some(init) = init.filter(|init| init.pid() != 0) {
            let _ = self.reaper.signal(init.pid(), Signal::KILL);
        }
        if let Err(error) = self.runtime.delete(&container.id) {
            tracing::warn!(container = container.id, %error, "cleaning up after a failed create");
        }
        self.oom.forget(&container.id);
        let _ = fs::remove_file(container.bundle.join("config.json"));
        // Only if nothing else is in it.
        let _ = fs::remove_dir(&container.bundle);
    }

    /// Lets the first process run, tied to the streams of `dial`, with a console of `size` (height, width) if it has
    /// one.
    pub(crate) fn start(
        &self,
        id: &str,
        size: Option<[u16; 2]>,
        dial: impl FnOnce(bool) -> Result<Streams>,
    ) -> Result<Arc<Process>> {
        let container = self.get(id)?;
        let (init, ends) = {
            let mut state = container.lock();
            match state.phase {
                Phase::Created => {}
                Phase::Creating => return Err(state_error(id, "is still being created")),
                Phase::Deleting => return Err(state_error(id, "is being deleted")),
                Phase::Started => return Err(state_error(id, "was started before")),
            }
            let (Some(init), Some(ends)) = (state.init.clone(), state.ends.take()) else {
                return Err(AgentError::AlreadyStopped(id.to_owned()));
            };
            if init.has_exited() {
                return Err(AgentError::AlreadyStopped(id.to_owned()));
            }
            state.phase = Phase::Started;
            (init, ends)
        };
        let console = matches!(ends, ProcessEnds::Console(_));
        if let (ProcessEnds::Console(console), Some([height, width])) = (&ends, size) {
            set_size(console, height, width);
        }
        let outcome = dial(console)
            .and_then(|streams| stdio::connect(&init, ends, streams))
            .and_then(|()| self.runtime.start(id));
        if outcome.is_err() {
            // Held for ever otherwise; its end is reported like any other.
            let _ = self.signal(&init, Signal::KILL);
        }
        outcome.map(|()| init)
    }

    /// Starts a further process in container `id`.
    pub(crate) fn exec(
        &self,
        id: &str,
        parameters: &ProcessParameters,
        document: &Value,
        dial: impl FnOnce(bool) -> Result<Streams>,
    ) -> Result<Arc<Process>> {
        let container = self.get(id)?;
        let document = container.exec_document(document)?;
        let _runs = container.not_paused()?;
        let console = document["terminal"]
            .as_bool()
            .unwrap_or(parameters.emulate_console);
        let streams = dial(console)?;
        let process = Process::new(Some(id.to_owned()), None).during(|| "making an event".into())?;
        let outcome = process.held(|| {
            let ends = self.runtime.exec(id, &document, console, &process)?;
            if let ProcessEnds::Console(console) = &ends {
                set_initial_size(console, &document);
            }
            stdio::connect(&process, ends, streams)
        });
        outcome.map(|()| process)
    }

    /// Asks the container to end, or ends it.
    pub(crate) fn shut_down(&self, id: &str, forced: bool) -> Result<()> {
        let container = self.get(id)?;
        let (init, started) = {
            let mut state = container.lock();
            let Some(init) = state.init.clone().filter(|_| state.phase != Phase::Creating) else {
                return Err(state_error(id, "is still being created"));
            };
            if init.has_exited() {
                return Err(AgentError::AlreadyStopped(id.to_owned()));
            }
            state.asked = if forced {
                NotificationType::ForcedExit
            } else {
                NotificationType::GracefulExit
            };
            (init, state.phase == Phase::Started)
        };
        // A process that was never let run would not act on SIGTERM.
        let signal = if forced || !started {
            Signal::KILL
        } else {
            Signal::TERM
        };
        self.signal(&init, signal)
            .during(|| format!("signalling container {id}"))?;
        if forced {
            // Without a PID namespace the rest of the container outlives its first process.
            let _ = fs::write(cgroup(id).join("cgroup.kill"), "1");
        }
        Ok(())
    }

    /// Frees everything of a container that has ended. Repeating it, or an unknown id, is no error.
    pub(crate) fn delete(&self, id: &str) -> Result<()> {
        let Ok(container) = self.get(id) else {
            return Ok(());
        };
        let held = {
            let mut state = container.lock();
            let init = state.init.clone();
            let running = init.as_ref().is_some_and(|init| !init.has_exited());
            match state.phase {
                Phase::Creating => return Err(state_error(id, "is still being created")),
                Phase::Started if running => return Err(state_error(id, "is running")),
                Phase::Created | Phase::Started | Phase::Deleting => state.phase = Phase::Deleting,
            }
            // The agent's ends of a container that never ran.
            state.ends = None;
            init.filter(|_| running)
        };
        if let Some(init) = held {
            self.end_held(&init);
        }
        self.oom.forget(id);
        self.runtime.delete(id)?;
        for directory in container.scratch.iter().chain([&container.bundle]) {
            mount_point::remove_tree(directory)?;
        }
        remove_cgroup(&cgroup(id))?;
        self.table().remove(id);
        Ok(())
    }

    fn end_held(&self, init: &Process) {
        let (sender, ended) = mpsc::channel();
        let waits = init.wait(move |_| {
            let _ = sender.send(());
        });
        let _ = self.signal(init, Signal::KILL);
        if waits.is_ok() {
            let _ = ended.recv_timeout(KILL_LIMIT);
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Container>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Container {
    /// Its cgroup's directory.
    pub(crate) fn cgroup(&self) -> PathBuf {
        cgroup(&self.id)
    }

    /// The process number of its init, while that runs.
    fn running_init(&self) -> Option<u32> {
        let init = self.lock().init.clone()?;
        (init.pid() != 0 && !init.has_exited()).then(|| init.pid())
    }

    /// Init has ended and its output is out.
    fn done(&self) {
        self.oom.ended(&self.id);
        self.lock().done = true;
        self.notify_once();
    }

    fn created(&self) {
        self.lock().phase = Phase::Created;
        // It may have ended before.
        self.notify_once();
    }

    /// Exactly one notification for each container that was created (GCS bridge protocol §13.2).
    fn notify_once(&self) {
        let kind = {
            let mut state = self.lock();
            if !state.done || state.notified || state.phase == Phase::Creating {
                return;
            }
            state.notified = true;
            state.asked
        };
        (self.notify)(ContainerNotification {
            container_id: self.id.clone(),
            activity_id: self.activity_id.clone(),
            r#type: kind,
            ..ContainerNotification::default()
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cgroup(id: &str) -> PathBuf {
    Path::new(CGROUPS).join(spec::cgroup_path(id).trim_start_matches('/'))
}

fn state_error(id: &str, what: &str) -> AgentError {
    AgentError::InvalidState(format!("container {id:?} {what}"))
}
