//! One container: what it holds of the VM, its init, its further processes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use cofferdam_container::{Allocation, Created, Executed, Held, Mounts, Stdio, delete_state, facts};
use cofferdam_plan::{PlanRequest, Spec};
use cofferdam_vm::UtilityVm;
use serde_json::Value;

use crate::{
    Endpoints, PodError, ProcessName, Status,
    process::{Live, Process},
};

/// A container that is wanted.
pub struct NewContainer<'a> {
    /// Its name.
    pub id: &'a str,
    /// Its spec, as it was written for the host.
    pub spec: &'a Spec,
    /// Its bundle on the host; relative paths of the spec start here.
    pub bundle: &'a Path,
    /// The far ends of its init's streams.
    pub endpoints: Endpoints,
    /// What speaks against a file as a disk image.
    pub check_image: facts::ImageCheck<'a>,
}

/// A container in the VM.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) init: Arc<Process>,
    /// What it is given while it runs.
    pub(crate) mounts: Arc<Mounts>,
    /// What it got for its spec.
    pub(crate) held: Arc<[Held]>,
    /// Where it lives in the VM.
    pub(crate) root: String,
    /// Its spec, as it was written for the host.
    pub(crate) spec: Spec,
    pub(crate) created_at: SystemTime,
    vm: Arc<UtilityVm>,
    /// Until it is started.
    created: Mutex<Option<Created>>,
    execs: Mutex<BTreeMap<String, Exec>>,
    /// Held over I/O, by its only user: the deletion.
    allocation: tokio::sync::Mutex<Holding>,
}

/// What is to be given back.
struct Holding {
    allocation: Allocation,
    /// Whether the guest still has its state, which it forgets once.
    state: bool,
}

/// A further process, and what it is to run.
#[derive(Clone)]
struct Exec {
    process: Arc<Process>,
    spec: Arc<Value>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Container {
    /// Plans, allocates and creates. After a failure the VM holds nothing for it.
    pub(crate) async fn create(vm: &Arc<UtilityVm>, new: NewContainer<'_>) -> Result<Self, PodError> {
        let root = vm.new_container_root();
        let request = PlanRequest {
            spec: new.spec,
            bundle: new.bundle,
            container_root: &root,
            process_isolation: false,
        };
        let plan = facts::planned(request, new.check_image)?;
        let mut allocation = Allocation::allocate(vm.driver(), &plan).await?;
        let created = match Created::create(vm.clone(), new.id, &root, &plan.spec).await {
            Ok(created) => created,
            Err(error) => {
                if let Err(also) = allocation.release().await {
                    tracing::error!(error = %also, "while undoing container {}", new.id);
                }
                return Err(error.into());
            }
        };
        Ok(Self {
            id: new.id.to_owned(),
            bundle: new.bundle.to_owned(),
            init: Arc::new(Process::new(ProcessName::init(new.id), new.endpoints)),
            mounts: allocation.mounts().clone(),
            held: allocation.held().clone(),
            root,
            spec: new.spec.clone(),
            created_at: SystemTime::now(),
            vm: vm.clone(),
            created: Mutex::new(Some(created)),
            execs: Mutex::default(),
            allocation: tokio::sync::Mutex::new(Holding {
                allocation,
                state: true,
            }),
        })
    }

    /// Starts its init. The caller has moved it to Starting.
    pub(crate) async fn start_init(&self, stdio: Stdio, size: Option<(u16, u16)>) -> Result<Live, PodError> {
        let created = locked(&self.created).take();
        let created = created.ok_or_else(|| self.init.unfit("its start failed before"))?;
        Ok(Live::Init(created.start(stdio, size).await?))
    }

    /// Starts a further process. The caller has moved it to Starting.
    pub(crate) async fn start_exec(
        &self,
        process: &Process,
        stdio: Stdio,
        size: Option<(u16, u16)>,
    ) -> Result<Live, PodError> {
        let spec = self.exec(&process.name)?.spec;
        Ok(Live::Exec(
            Executed::start(&self.vm, &self.id, &spec, stdio, size).await?,
        ))
    }

    /// Ends an init that was never started.
    pub(crate) async fn end_unstarted(&self) -> Result<(), PodError> {
        let created = locked(&self.created).take();
        match created {
            Some(created) if !self.vm.is_gone().await => Ok(created.end().await?),
            _ => Ok(()),
        }
    }

    /// Notes a further process.
    pub(crate) fn add_exec(&self, exec: &str, spec: Value, endpoints: Endpoints) -> Result<(), PodError> {
        if self.init.status() != Status::Running {
            return Err(self
                .init
                .unfit("only in a running container can a process be executed"));
        }
        let name = ProcessName::exec(&self.id, exec);
        let mut execs = locked(&self.execs);
        if execs.contains_key(exec) {
            return Err(PodError::Exists(name));
        }
        let process = Arc::new(Process::new(name, endpoints));
        let spec = Arc::new(spec);
        execs.insert(exec.to_owned(), Exec { process, spec });
        Ok(())
    }

    fn exec(&self, name: &ProcessName) -> Result<Exec, PodError> {
        let exec = name.exec.as_deref().unwrap_or_default();
        let found = locked(&self.execs).get(exec).cloned();
        found.ok_or_else(|| PodError::NoProcess(name.clone()))
    }

    /// One of its processes.
    pub(crate) fn process(&self, name: &ProcessName) -> Result<Arc<Process>, PodError> {
        match name.exec {
            None => Ok(self.init.clone()),
            Some(_) => Ok(self.exec(name)?.process),
        }
    }

    /// Forgets a further process.
    pub(crate) fn forget(&self, exec: &str) {
        locked(&self.execs).remove(exec);
    }

    /// Its further processes.
    pub(crate) fn execs(&self) -> Vec<Arc<Process>> {
        let execs = locked(&self.execs);
        execs.values().map(|exec| exec.process.clone()).collect()
    }

    /// Gives back everything it holds, then makes the guest forget it. Goes on where an earlier try failed.
    pub(crate) async fn release(&self) -> Result<(), PodError> {
        // It may have been stopped by a start that did not come so far.
        self.end_unstarted().await?;
        let mut held = self.allocation.lock().await;
        held.allocation.release().await?;
        if held.state && !self.vm.is_gone().await {
            delete_state(&self.vm, &self.id).await?;
        }
        held.state = false;
        Ok(())
    }
}
