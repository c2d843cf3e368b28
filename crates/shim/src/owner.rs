//! This process as the owner of a VM, on containerd's behalf.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use async_trait::async_trait;
use cofferdam_plan::Spec;
use cofferdam_pod::{Pod, PodLimits};
use cofferdam_task::{Owner, OwnerFailure, Up};
use containerd_shim::{Flags, asynchronous::ExitSignal, protos::api::Mount, publisher::RemotePublisher};
use tokio::sync::OnceCell;

use crate::{
    address,
    machine::{self, Machine},
    publish, rootfs,
    watched::Watched,
};

/// For the answer to a shutdown to leave before the process does.
const LAST_WORD: Duration = Duration::from_millis(20);

/// The owner.
pub(crate) struct ShimOwner {
    namespace: String,
    name: String,
    bundle: PathBuf,
    publisher: Mutex<Option<RemotePublisher>>,
    ended: Arc<ExitSignal>,
    vm: OnceCell<Vm>,
    /// Whether the last try to boot failed.
    failed: AtomicBool,
}

/// A VM that runs, with its containers.
struct Vm {
    up: Up,
    /// Until it is shut down.
    running: Mutex<Option<Running>>,
}

/// What ends with it.
struct Running {
    machine: Machine,
    watched: Watched,
}

impl ShimOwner {
    pub(crate) fn new(
        flags: &Flags,
        bundle: &Path,
        publisher: RemotePublisher,
        ended: Arc<ExitSignal>,
    ) -> Self {
        Self {
            namespace: flags.namespace.clone(),
            name: machine::owner_name(&flags.namespace, &flags.id),
            bundle: bundle.to_owned(),
            publisher: Mutex::new(Some(publisher)),
            ended,
            vm: OnceCell::new(),
            failed: AtomicBool::new(false),
        }
    }

    async fn vm(&self) -> Result<&Vm> {
        let vm = self.vm.get_or_try_init(|| self.boot()).await;
        self.failed.store(vm.is_err(), Ordering::Relaxed);
        vm
    }

    async fn boot(&self) -> Result<Vm> {
        let machine = Machine::boot(&self.name, &self.bundle).await?;
        let (pod, events) = Pod::in_namespace(machine.vm().clone(), &self.namespace);
        let made = async {
            self.limited(&pod).await?;
            Watched::serve(machine.dir(), &pod, events).context("opening the owner's sockets")
        };
        let (watched, events) = match made.await {
            Ok(made) => made,
            Err(error) => {
                return Err(match machine.end().await {
                    Ok(()) => error,
                    Err(also) => anyhow!("{error:#}\nand afterwards: {also:#}"),
                });
            }
        };
        let hypervisor = machine.hypervisor();
        let publisher = self
            .publisher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(publisher) = publisher {
            let namespace = self.namespace.clone();
            tokio::spawn(publish::publish(events, publisher, namespace, hypervisor));
        }
        Ok(Vm {
            up: Up { pod, hypervisor },
            running: Mutex::new(Some(Running { machine, watched })),
        })
    }

    async fn limited(&self, pod: &Pod) -> Result<()> {
        let limits = PodLimits::of_sandbox(&address::spec_of(&self.bundle)?)?;
        pod.limit(limits).await.context("limiting the pod")
    }

    async fn end(&self) -> Result<()> {
        if self.vm.get().is_none() && self.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        // A boot under way is waited for: it is ended when it is whole.
        let Ok(vm) = self.vm().await else { return Ok(()) };
        let running = vm.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        match running {
            Some(Running { machine, watched }) => {
                watched.finish().await;
                machine.end().await
            }
            None => Ok(()),
        }
    }
}

/// A failure whose text holds its causes.
fn told(error: anyhow::Error) -> OwnerFailure {
    format!("{error:#}").into()
}

#[async_trait]
impl Owner for ShimOwner {
    async fn up(&self) -> Result<Up, OwnerFailure> {
        self.vm().await.map(|vm| vm.up.clone()).map_err(told)
    }

    fn there(&self) -> Option<Up> {
        self.vm.get().map(|vm| vm.up.clone())
    }

    fn prepare(&self, bundle: &Path, mounts: &[Mount]) -> Result<Spec, OwnerFailure> {
        let prepared = || {
            let spec = address::spec_of(bundle)?;
            rootfs::mount_all(mounts, bundle, &spec)?;
            Ok(spec)
        };
        prepared().map_err(told)
    }

    fn clear(&self, bundle: &Path) -> Result<(), OwnerFailure> {
        rootfs::unmount(bundle).map_err(told)
    }

    async fn shut_down(&self) -> Result<(), OwnerFailure> {
        let ended = self.end().await;
        let signal = self.ended.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LAST_WORD).await;
            signal.signal();
        });
        ended.map_err(told)
    }
}
