//! One container: what it holds of the VM, its init, its further processes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use cofferdam_container::{Allocation, Created, Executed, Held, Mounts, Stdio, delete_state, facts};
use cofferdam_plan::{PlanRequest, Spec};
use cofferdam_protocol::message::PropertyType;
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
    work: Arc<Work>,
}

/// What a further process is to run.
pub(crate) enum Work {
    /// A program in the container: the OCI spec's `process`.
    Inside(Value),
    /// The agent's copying of files, from outside of it: the order, which is the agent's to read.
    Copy(String),
}

impl Work {
    fn fits(&self, status: Status) -> Result<(), &'static str> {
        match (self, status) {
            (Self::Inside(_), Status::Running) => Ok(()),
            (Self::Inside(_), _) => Err("only in a running container can a process be executed"),
            (Self::Copy(_), Status::Created | Status::Running | Status::Paused) => Ok(()),
            (Self::Copy(_), _) => Err("files are copied while its root is there, which goes with it"),
        }
    }
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
        let work = self.exec(&process.name)?.work;
        Ok(Live::Exec(match work.as_ref() {
            Work::Inside(spec) => Executed::start(&self.vm, &self.id, spec, stdio, size).await?,
            Work::Copy(order) => {
                let args = self.copying(order).await?;
                Executed::start_outside(&self.vm, &self.id, args, stdio).await?
            }
        }))
    }

    /// The agent's own command line for a copy. The process whose root is copied from or to is the init.
    async fn copying(&self, order: &str) -> Result<Vec<String>, PodError> {
        let bridge = self.vm.bridge();
        if !bridge.capabilities().guest_defined_capabilities.cofferdam_copy {
            return Err(PodError::NoCopies);
        }
        let init = match self.init.handle() {
            Ok(handle) => handle.process(),
            // It is held, and nothing else is in its container.
            Err(_) => {
                let asked = bridge.get_properties(&self.id, &[PropertyType::ProcessList]);
                let list = asked.await?.process_list;
                let first = list.first().map(|process| process.process_id);
                first.ok_or_else(|| {
                    self.init
                        .unfit("it has no process whose root could be copied from or to")
                })?
            }
        };
        let words = ["/proc/self/exe", "archive", &self.id, &init.to_string(), order];
        Ok(words.map(str::to_owned).to_vec())
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
    pub(crate) fn add_exec(&self, exec: &str, work: Work, endpoints: Endpoints) -> Result<(), PodError> {
        work.fits(self.init.status())
            .map_err(|wanted| self.init.unfit(wanted))?;
        let name = ProcessName::exec(&self.id, exec);
        let mut execs = locked(&self.execs);
        if execs.contains_key(exec) {
            return Err(PodError::Exists(name));
        }
        let process = Arc::new(Process::new(name, endpoints));
        let work = Arc::new(work);
        execs.insert(exec.to_owned(), Exec { process, work });
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

    /// Ends the copies that are under way: they hold its root, and do not end with its init.
    pub(crate) async fn end_copies(&self) {
        let copies: Vec<_> = locked(&self.execs)
            .values()
            .filter(|exec| matches!(*exec.work, Work::Copy(_)))
            .filter_map(|exec| exec.process.handle().ok())
            .collect();
        for copy in copies {
            if let Err(error) = copy.signal(9).await {
                tracing::warn!(%error, "ending a copy of container {}", self.id);
            }
        }
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
