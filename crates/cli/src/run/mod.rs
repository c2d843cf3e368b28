//! `cofferdam run` and `cofferdam create`: one container in a VM of its own, in the foreground or detached.
//!
//! Everything that was taken is given back on every way out; what could not be is said, and makes the command fail.

mod container;

use std::{
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use cofferdam_backend::Backend;
use cofferdam_container::{RunError, facts::planned};
use cofferdam_owner::{Ended, Isolation, Owned, OwnerError, Root};
use cofferdam_plan::{Plan, PlanRequest, Spec};
use cofferdam_pod::{Pod, PodError};
use cofferdam_qemu::{BootFiles, QemuBackend, QemuConfig};
use cofferdam_task::Up;
use cofferdam_vm::{BootOptions, UtilityVm};
use containerd_shim::protos::ttrpc::r#async::Server;

use crate::{
    about::{self, Followed},
    args::{self, NetworkKind, RunArgs, VmArgs},
    exit::Exit,
    log_file::LogFile,
    network::VmNetwork,
    owned::{self, ServerTask, VmOwner},
    run_image::Subject,
    signals::Signals,
    streams::{self, Copying, Pending},
    task,
    timings::Timings,
};

/// How a run ends early.
enum Stopped {
    /// cofferdam failed.
    Failed(anyhow::Error),
    /// The VM or its agent went away while the container was there.
    Lost(anyhow::Error),
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

/// How the container is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The command is there until it has ended.
    Foreground,
    /// It is started, and left to its owner.
    Detached,
    /// It is left to its owner, who waits for somebody to start it.
    Held,
}

/// Runs the command.
pub(crate) async fn execute(root: &Root, args: &RunArgs, mode: Mode, subject: Subject) -> Exit {
    let mut timings = Timings::start();
    let ended = run(root, args, mode, subject, &mut timings).await;
    if args.vm.timings {
        eprint!("{timings}");
    }
    match ended {
        Ok(status) => Exit::container(status),
        Err(Stopped::Failed(error) | Stopped::Lost(error)) => Exit::failed(format!("{error:#}")),
        Err(Stopped::NotStarted(error)) => Exit::not_started(error),
        Err(Stopped::Interrupted(signal)) => Exit::signalled(signal),
    }
}

async fn run(
    root: &Root,
    args: &RunArgs,
    mode: Mode,
    subject: Subject,
    timings: &mut Timings,
) -> Result<u8, Stopped> {
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
    // From here on somebody else can find what this process has taken.
    let mut owned = Owned::claim(root, &subject.id, &bundle, Isolation::Vm)?;
    let network = match VmNetwork::prepare(&args.network, usual, &mut owned) {
        Ok(network) => network,
        Err(error) => {
            owned.close()?;
            return Err(error.into());
        }
    };
    config.network.clone_from(&network.nics);
    // Not where it is to outlive its owner.
    config.runtime_dir = owned.place_for_sockets().filter(|_| !args.vm.keep_on_failure);
    let dir = owned.dir().to_owned();
    let made = match early {
        Some(spec) => Ok(spec),
        None => subject.make(&mut owned).and_then(|()| checked()),
    };
    let noted = |spec: Spec| {
        about::note(owned.dir(), args, &spec, &bundle, Some(&network))?;
        Ok(spec)
    };
    let made = made.and_then(noted);
    let ended = match made {
        Ok(spec) => {
            let wanted = Wanted {
                id: &subject.id,
                spec: &spec,
                bundle: &bundle,
                interactive: match mode {
                    Mode::Foreground => subject.interactive,
                    Mode::Detached | Mode::Held => args.interactive,
                },
                network: &network,
                detached: (mode != Mode::Foreground).then_some(Detached {
                    dir: &dir,
                    held: mode == Mode::Held,
                    log_bytes: args.log_max_size,
                }),
            };
            owned_run(args, wanted, config, &mut owned, &mut signals, timings).await
        }
        Err(error) => Err(Stopped::Failed(error)),
    };
    // A record that stays leads whoever repairs to what could not be removed.
    let kept = (mode != Mode::Foreground && !args.image.rm)
        .then(|| kept(&ended))
        .flatten();
    let closed = network
        .close()
        .and_then(|()| subject.remove())
        .and_then(|()| match kept {
            Some(kept) => Ok(owned.keep(&kept)?),
            None => Ok(owned.close()?),
        });
    with_clean_up(ended, closed)
}

/// How a run ended, once it was cleared up after it: both errors are told.
fn with_clean_up(ended: Result<u8, Stopped>, cleared: Result<()>) -> Result<u8, Stopped> {
    match (ended, cleared) {
        (Err(Stopped::Failed(first) | Stopped::Lost(first)), Err(second)) => {
            Err(Stopped::Failed(anyhow!("{first:#}\nand afterwards: {second:#}")))
        }
        (ended, cleared) => ended.and_then(|status| cleared.map(|()| status).map_err(Stopped::Failed)),
    }
}

/// What is told of a container afterwards; nothing of one that never was.
fn kept(ended: &Result<u8, Stopped>) -> Option<Ended> {
    let (status, reason) = match ended {
        Ok(status) => (*status, None),
        // As if it had been killed, which in a way it was.
        Err(Stopped::Lost(error)) => (128 + 9, Some(format!("{error:#}"))),
        Err(_) => return None,
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(Ended {
        status,
        at_s: since.as_secs(),
        reason,
    })
}

/// The container that is wanted.
struct Wanted<'a> {
    id: &'a str,
    spec: &'a Spec,
    bundle: &'a Path,
    /// Whether it reads our standard input.
    interactive: bool,
    network: &'a VmNetwork,
    /// Where it does not have the command's own streams.
    detached: Option<Detached<'a>>,
}

/// A container that outlives its command.
struct Detached<'a> {
    /// Its owner's directory.
    dir: &'a Path,
    /// Whether it waits for somebody to start it.
    held: bool,
    /// What its log takes at most.
    log_bytes: u64,
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
    let ended = match answering(owned, &backend, &vm, &wanted).await {
        Ok(mut answering) => {
            let events = answering.events.take();
            let ended = match wanted.network.configure(&vm).await {
                Ok(()) => {
                    timings.reached("network");
                    container::in_vm(&wanted, &mut answering, signals, timings).await
                }
                Err(error) => Err(Stopped::Failed(error)),
            };
            if let Some(events) = events {
                events.finish().await;
            }
            ended
        }
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
    pod: Arc<Pod>,
    /// The streams of a container that was not started yet, and is detached.
    pending: Pending,
    /// Its output, on its way.
    copying: Option<Copying>,
    /// What happens, for whoever listens: to the last event.
    events: Option<Followed>,
    _control: ServerTask,
    _tasks: Server,
}

/// Notes the VM's process, and answers whoever asks about it.
async fn answering(
    owned: &mut Owned,
    backend: &QemuBackend,
    vm: &Arc<UtilityVm>,
    wanted: &Wanted<'_>,
) -> Result<Answering> {
    owned.note_hypervisor(backend.process_id())?;
    let (pod, events) = Pod::new(vm.clone());
    let (mut shared, mut copying, pending) = (None, None, Pending::default());
    if let Some(detached) = &wanted.detached {
        let log = LogFile::open(detached.dir, detached.log_bytes).context("making the log")?;
        let made = streams::shared(&log, wanted.interactive);
        (shared, copying) = (Some(made.shared), Some(made.copying));
        pending.put(made.streams);
    }
    let held = wanted.detached.as_ref().is_some_and(|detached| detached.held);
    let up = Up {
        pod: pod.clone(),
        hypervisor: backend.process_id().unwrap_or_default(),
    };
    let owner = VmOwner::new(pod.clone(), wanted.id, shared);
    Ok(Answering {
        _control: owned::serve(owned.dir(), Arc::new(owner))?,
        _tasks: task::serve(owned.dir(), up, held.then(|| pending.clone())).await?,
        pending,
        copying,
        events: Some(Followed::serve(owned, &pod, events)?),
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

/// An error whose text holds its causes already.
pub(crate) fn told(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
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
