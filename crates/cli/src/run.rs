//! `cofferdam run`: one container in a VM of its own, in the foreground.
//!
//! Everything that was taken is given back on every way out; what could not be is said, and makes the command fail.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use cofferdam_backend::Backend;
use cofferdam_container::{RunError, Stdio, facts::planned, left_behind};
use cofferdam_owner::{Ended, Isolation, Owned, OwnerError, Root};
use cofferdam_plan::{Plan, PlanRequest, Spec};
use cofferdam_pod::{Endpoints, Exit as ProcessExit, NewContainer, Pod, PodError, ProcessName};
use cofferdam_qemu::{BootFiles, QemuBackend, QemuConfig};
use cofferdam_task::Up;
use cofferdam_vm::{BootOptions, UtilityVm};
use containerd_shim::protos::ttrpc::r#async::Server;

use crate::{
    args::{self, NetworkKind, RunArgs, VmArgs},
    detached,
    exit::Exit,
    log_file::LogFile,
    network::VmNetwork,
    owned::{self, ServerTask, VmOwner},
    run_image::Subject,
    signals::{Event, Signals},
    task,
    terminal::{self, RawTerminal},
    timings::Timings,
};

/// How a run ends early.
enum Stopped {
    /// cofferdam failed.
    Failed(anyhow::Error),
    /// The container's program could not be started.
    NotStarted(PodError),
    /// The user asked to end before there was a container.
    Interrupted(i32),
}

impl Stopped {
    fn of(error: PodError) -> Self {
        match error {
            PodError::Run(RunError::Create(_) | RunError::Start(_)) => Self::NotStarted(error),
            error => Self::Failed(told(error)),
        }
    }
}

impl From<OwnerError> for Stopped {
    fn from(error: OwnerError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<anyhow::Error> for Stopped {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Runs the command.
pub(crate) async fn execute(root: &Root, args: &RunArgs, subject: Subject) -> Exit {
    let mut timings = Timings::start();
    let ended = run(root, args, subject, &mut timings).await;
    if args.vm.timings {
        eprint!("{timings}");
    }
    match ended {
        Ok(status) => Exit::container(status),
        Err(Stopped::Failed(error)) => Exit::failed(format!("{error:#}")),
        Err(Stopped::NotStarted(error)) => Exit::not_started(error),
        Err(Stopped::Interrupted(signal)) => Exit::signalled(signal),
    }
}

async fn run(root: &Root, args: &RunArgs, subject: Subject, timings: &mut Timings) -> Result<u8, Stopped> {
    let mut signals = Signals::watch().context("watching for signals")?;
    let bundle = std::path::absolute(subject.dir()).context("resolving the bundle's path")?;
    // Refusals come before the VM is started, and before anything is taken where that can be.
    let checked = || -> Result<Spec> {
        let spec = subject.spec(&bundle)?;
        drop(container_plan(&spec, &bundle, "/run/gcs/c/1")?);
        Ok(spec)
    };
    let early = subject.is_there().then(checked).transpose()?;
    let mut config = config(&args.vm)?;
    let usual = if subject.is_there() {
        NetworkKind::None
    } else {
        NetworkKind::User
    };
    let network = VmNetwork::prepare(&args.network, usual)?;
    config.network.clone_from(&network.nics);
    // From here on somebody else can find what this process has taken.
    let mut owned = Owned::claim(root, &subject.id, &bundle, Isolation::Vm)?;
    // Not where it is to outlive its owner.
    config.runtime_dir = owned.place_for_sockets().filter(|_| !args.vm.keep_on_failure);
    let made = match early {
        Some(spec) => Ok(spec),
        None => subject.make(&mut owned).and_then(|()| checked()),
    };
    let ended = match made {
        Ok(spec) => {
            let wanted = Wanted {
                id: &subject.id,
                spec: &spec,
                bundle: &bundle,
                interactive: subject.interactive,
                network: &network,
                log: args.detach.then(|| owned.dir().to_owned()),
            };
            owned_run(args, wanted, config, &mut owned, &mut signals, timings).await
        }
        Err(error) => Err(Stopped::Failed(error)),
    };
    // A record that stays leads whoever repairs to what could not be removed.
    let status = ended
        .as_ref()
        .ok()
        .copied()
        .filter(|_| args.detach && !args.image.rm);
    let closed = network
        .close()
        .and_then(|()| subject.remove())
        .and_then(|()| match status {
            Some(status) => Ok(owned.keep(ended_now(status))?),
            None => Ok(owned.close()?),
        });
    match (ended, closed) {
        (Err(Stopped::Failed(first)), Err(second)) => {
            Err(Stopped::Failed(anyhow!("{first:#}\nand afterwards: {second:#}")))
        }
        (ended, closed) => ended.and_then(|status| closed.map(|()| status).map_err(Stopped::Failed)),
    }
}

fn ended_now(status: u8) -> Ended {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ended {
        status,
        at_s: since.as_secs(),
    }
}

/// The container that is wanted.
struct Wanted<'a> {
    id: &'a str,
    spec: &'a Spec,
    bundle: &'a Path,
    /// Whether it reads our standard input.
    interactive: bool,
    network: &'a VmNetwork,
    /// The directory of the log that its output goes to, instead of our own.
    log: Option<PathBuf>,
}

/// From a record that names us to a VM that is gone.
async fn owned_run(
    args: &RunArgs,
    wanted: Wanted<'_>,
    config: QemuConfig,
    owned: &mut Owned,
    signals: &mut Signals,
    timings: &mut Timings,
) -> Result<u8, Stopped> {
    let backend = Arc::new(
        QemuBackend::new(config)
            .map_err(told)
            .context("preparing the utility VM")?,
    );
    owned.note_directory(backend.runtime_dir().to_owned())?;
    timings.reached("planned");

    let options = BootOptions::default();
    let booting = UtilityVm::boot_with(backend.clone(), &options, Some(owned.journal()));
    let booted = tokio::select! {
        booted = booting => booted.map_err(|error| Stopped::Failed(told(error))),
        signal = signals.interrupted() => Err(Stopped::Interrupted(signal)),
    };
    let vm = match booted {
        Ok(vm) => vm,
        Err(stopped) => {
            keep(args, &backend, signals).await;
            // Its own error is the smaller one: the VM never was anybody's.
            let _ = backend.stop().await;
            return Err(stopped);
        }
    };
    timings.booted(vm.times());
    let ended = match answering(owned, &backend, &vm).await {
        Ok(answering) => match wanted.network.configure(&vm).await {
            Ok(()) => {
                timings.reached("network");
                in_vm(&wanted, &answering, signals, timings).await
            }
            Err(error) => Err(Stopped::Failed(error)),
        },
        Err(error) => Err(Stopped::Failed(error)),
    };
    if ended.is_err() {
        keep(args, &backend, signals).await;
    }
    let stopped = vm.shut_down().await;
    timings.reached("VM gone");
    let status = ended?;
    stopped.map_err(told).context("freeing the utility VM")?;
    Ok(status)
}

/// What answers whoever asks, until it is dropped.
struct Answering {
    owner: Arc<VmOwner>,
    pod: Arc<Pod>,
    _control: ServerTask,
    _tasks: Server,
}

/// Notes the VM's process, and answers whoever asks about it.
async fn answering(owned: &mut Owned, backend: &QemuBackend, vm: &Arc<UtilityVm>) -> Result<Answering> {
    owned.note_hypervisor(backend.process_id())?;
    let owner = Arc::new(VmOwner::new(vm.clone()));
    // Nobody listens to its events yet.
    let (pod, _events) = Pod::new(vm.clone());
    let up = Up {
        pod: pod.clone(),
        hypervisor: backend.process_id().unwrap_or_default(),
    };
    Ok(Answering {
        _control: owned::serve(owned.dir(), owner.clone())?,
        _tasks: task::serve(owned.dir(), up).await?,
        owner,
        pod,
    })
}

fn config(args: &VmArgs) -> Result<QemuConfig> {
    let boot = match (&args.kernel, &args.initramfs) {
        (Some(kernel), Some(initramfs)) => BootFiles::named(kernel, initramfs)?,
        _ => BootFiles::find(args.boot_dir.as_deref())?,
    };
    let mut config = QemuConfig::new(boot.kernel, boot.initramfs);
    config.program = args.qemu.clone().into();
    config.memory_bytes = args.memory;
    config.cpus = args.cpus;
    config.limits.vpmem_devices = args.vpmem_count;
    config.keep_on_failure = args.keep_on_failure;
    config.accelerator = match args.accel {
        args::Accelerator::Auto => cofferdam_qemu::Accelerator::Auto,
        args::Accelerator::Kvm => cofferdam_qemu::Accelerator::Kvm,
        args::Accelerator::Tcg => cofferdam_qemu::Accelerator::Tcg,
    };
    Ok(config)
}

fn container_plan(spec: &Spec, bundle: &Path, container_root: &str) -> Result<Plan> {
    let request = PlanRequest {
        spec,
        bundle,
        container_root,
        process_isolation: false,
    };
    planned(request, &cofferdam_image::check).map_err(told)
}

/// Everything between a VM that answers and a VM that holds nothing.
async fn in_vm(
    wanted: &Wanted<'_>,
    answering: &Answering,
    signals: &mut Signals,
    timings: &mut Timings,
) -> Result<u8, Stopped> {
    let pod = &answering.pod;
    let new = NewContainer {
        id: wanted.id,
        spec: wanted.spec,
        bundle: wanted.bundle,
        endpoints: Endpoints {
            terminal: wants_terminal(wanted.spec),
            ..Endpoints::default()
        },
        check_image: &cofferdam_image::check,
    };
    tokio::select! {
        created = pod.create(new) => created.map_err(Stopped::of)?,
        signal = signals.interrupted() => return Err(Stopped::Interrupted(signal)),
    }
    timings.reached("created");
    let name = ProcessName::init(wanted.id);
    let ended = match container(pod, &name, &answering.owner, wanted, signals, timings).await {
        Ok(exit) if exit.lost => Err(died(pod.vm()).await),
        Ok(exit) => Ok(exit.status),
        Err(stopped) => Err(stopped),
    };
    let released = release(pod, &name).await;
    timings.reached("released");
    match (ended, released) {
        (Err(Stopped::Failed(first)), Err(second)) => {
            Err(Stopped::Failed(anyhow!("{first:#}\nand afterwards: {second:#}")))
        }
        (ended, released) => ended.and_then(|status| released.map(|()| status).map_err(Stopped::Failed)),
    }
}

fn wants_terminal(spec: &Spec) -> bool {
    let wish = spec.document().pointer("/process/terminal");
    wish.and_then(serde_json::Value::as_bool).unwrap_or(false)
}

/// What to say of a container whose VM or agent went away.
async fn died(vm: &UtilityVm) -> Stopped {
    Stopped::Failed(match vm.died().await {
        Some(exit) => anyhow!("the utility VM died while the container was running: {exit}"),
        None => anyhow!("the guest agent went away while the container was running"),
    })
}

/// An error whose text holds its causes already.
pub(crate) fn told(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

/// The container from its start to its exit.
async fn container(
    pod: &Pod,
    name: &ProcessName,
    owner: &VmOwner,
    wanted: &Wanted<'_>,
    signals: &mut Signals,
    timings: &mut Timings,
) -> Result<ProcessExit, Stopped> {
    let has_terminal = wants_terminal(wanted.spec);
    if let (true, Some((rows, columns))) = (has_terminal, terminal::size()) {
        pod.resize(name, rows, columns).await.map_err(Stopped::of)?;
    }
    // Without a terminal of ours there is nothing to make raw, and nothing is lost if it cannot be.
    let raw = (has_terminal && terminal::is_interactive()).then(RawTerminal::enter);
    let mut log = wanted
        .log
        .as_deref()
        .map(LogFile::open)
        .transpose()
        .context("making the log")?;
    let stdio = match &mut log {
        Some(log) => Stdio {
            stdin: None,
            stdout: Some(Box::new(log.stream("stdout"))),
            stderr: Some(Box::new(log.stream("stderr"))),
        },
        None => Stdio {
            stdin: wanted.interactive.then(|| Box::new(tokio::io::stdin()) as _),
            stdout: Some(Box::new(tokio::io::stdout())),
            stderr: Some(Box::new(tokio::io::stderr())),
        },
    };
    pod.start_with(name, stdio).await.map_err(Stopped::of)?;
    owner.runs(wanted.id, pod.mounts(wanted.id).map_err(Stopped::of)?);
    timings.reached("started");
    if log.is_some() {
        detached::announce(wanted.id)?;
    }
    let exit = attended(pod, name, signals).await;
    drop(raw);
    if let Some(log) = log {
        log.finish().await.context("writing the log")?;
    }
    timings.reached("exited");
    exit.map_err(Stopped::of)
}

/// Waits for the container while passing signals and sizes on.
async fn attended(pod: &Pod, name: &ProcessName, signals: &mut Signals) -> Result<ProcessExit, PodError> {
    let waiting = pod.wait(name);
    tokio::pin!(waiting);
    loop {
        let event = tokio::select! {
            exit = &mut waiting => return exit,
            event = signals.next() => event,
        };
        let passed_on = match event {
            Event::Signal(number) => pod.kill(name, number, false).await,
            Event::Resized => match terminal::size() {
                Some((rows, columns)) => pod.resize(name, rows, columns).await,
                None => Ok(()),
            },
        };
        match passed_on {
            // It ended at the same moment, or it has no terminal to be resized.
            Ok(()) | Err(PodError::Finished(_) | PodError::NoTerminal(_)) => {}
            Err(error) => tracing::warn!(%error, "not passed on to the container"),
        }
    }
}

/// Gives everything back and proves it.
async fn release(pod: &Pod, name: &ProcessName) -> Result<()> {
    pod.delete(name)
        .await
        .context("releasing what the container held")?;
    let vm = pod.vm();
    if vm.is_gone().await {
        return Ok(());
    }
    let left = left_behind(vm)
        .await
        .map_err(told)
        .context("asking what is left in the VM")?;
    if left.is_empty() {
        Ok(())
    } else {
        Err(anyhow!("left behind: {}", left.join(", ")))
    }
}

/// With --keep-on-failure, holds the VM until the user has seen enough.
async fn keep(args: &RunArgs, backend: &QemuBackend, signals: &mut Signals) {
    if !args.vm.keep_on_failure {
        return;
    }
    let process = backend
        .process_id()
        .map_or("none".to_owned(), |id| id.to_string());
    let dir = backend.runtime_dir();
    eprintln!(
        "cofferdam: the utility VM is kept: process {process}, console and messages in {}\n\
         cofferdam: end it with Ctrl-C",
        dir.display()
    );
    tokio::select! {
        _ = signals.interrupted() => {}
        exit = backend.exited() => eprintln!("cofferdam: the utility VM ended: {exit}"),
    }
}
