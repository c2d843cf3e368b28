//! The task API over a pod's containers.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use cofferdam_pod::{NewContainer, Pod, Status};
use containerd_shim::{
    Flags, Task, TtrpcContext, TtrpcResult,
    api::{
        CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
        DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest,
        PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse,
        StateRequest, StateResponse, StatsRequest, StatsResponse, UpdateTaskRequest, WaitRequest,
        WaitResponse,
    },
    asynchronous::ExitSignal,
    protos::{api::ProcessInfo, ttrpc::Code},
    publisher::RemotePublisher,
};
use tokio::sync::OnceCell;

use crate::{
    address,
    convert::{self, Answered, name, refusal, timestamp},
    machine::{self, Machine},
    metrics, publish, rootfs,
};

/// For the answer to a shutdown to leave before the process does.
const LAST_WORD: Duration = Duration::from_millis(20);

/// The task API of one VM.
pub(crate) struct Service {
    namespace: String,
    owner: String,
    bundle: PathBuf,
    publisher: Mutex<Option<RemotePublisher>>,
    ended: Arc<ExitSignal>,
    up: OnceCell<Up>,
    /// Whether the last try to boot failed.
    failed: AtomicBool,
}

/// A VM that runs, with its containers.
struct Up {
    pod: Arc<Pod>,
    hypervisor: u32,
    /// Until it is shut down.
    machine: Mutex<Option<Machine>>,
}

impl Service {
    pub(crate) fn new(
        flags: &Flags,
        bundle: &Path,
        publisher: RemotePublisher,
        ended: Arc<ExitSignal>,
    ) -> Self {
        Self {
            namespace: flags.namespace.clone(),
            owner: machine::owner_name(&flags.namespace, &flags.id),
            bundle: bundle.to_owned(),
            publisher: Mutex::new(Some(publisher)),
            ended,
            up: OnceCell::new(),
            failed: AtomicBool::new(false),
        }
    }

    /// Begins to boot. A failure is the first container's to be told, which tries again.
    pub(crate) fn prepare(self: &Arc<Self>) {
        let service = self.clone();
        tokio::spawn(async move {
            if let Err(error) = service.up().await {
                tracing::warn!("the VM did not come up: {error:#}");
            }
        });
    }

    async fn up(&self) -> Result<&Up> {
        let up = self.up.get_or_try_init(|| self.boot()).await;
        self.failed.store(up.is_err(), Ordering::Relaxed);
        up
    }

    async fn boot(&self) -> Result<Up> {
        let machine = Machine::boot(&self.owner, &self.bundle).await?;
        let (pod, events) = Pod::new(machine.vm().clone());
        let hypervisor = machine.hypervisor();
        let publisher = self
            .publisher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(publisher) = publisher {
            tokio::spawn(publish::publish(
                events,
                publisher,
                self.namespace.clone(),
                hypervisor,
            ));
        }
        Ok(Up {
            pod,
            hypervisor,
            machine: Mutex::new(Some(machine)),
        })
    }

    /// The pod, if there is one: nothing but a creation makes the VM be waited for.
    fn there(&self) -> TtrpcResult<&Up> {
        let gone = || refusal(Code::NOT_FOUND, "no container was created here");
        self.up.get().ok_or_else(gone)
    }

    fn pod(&self) -> TtrpcResult<&Arc<Pod>> {
        Ok(&self.there()?.pod)
    }

    async fn created(&self, request: &CreateTaskRequest) -> TtrpcResult<u32> {
        let bundle = Path::new(&request.bundle);
        let spec = address::spec_of(bundle).answered()?;
        let up = self.up().await.answered()?;
        if up.pod.names().contains(&request.id) {
            return Err(refusal(
                Code::ALREADY_EXISTS,
                format!("container {} exists already", request.id),
            ));
        }
        let mounting = request.rootfs.clone();
        let mounted = tokio::task::block_in_place(|| rootfs::mount_all(&mounting, bundle, &spec));
        mounted.answered()?;
        let new = NewContainer {
            id: &request.id,
            spec: &spec,
            bundle,
            endpoints: convert::endpoints(&request.stdin, &request.stdout, &request.stderr, request.terminal),
            check_image: &cofferdam_image::check,
        };
        let created = up.pod.create(new).await.answered();
        if created.is_err()
            && let Err(error) = tokio::task::block_in_place(|| rootfs::unmount(bundle))
        {
            tracing::error!("while undoing container {}: {error:#}", request.id);
        }
        created.map(|()| up.hypervisor)
    }

    async fn shut_down(&self) -> Result<()> {
        if self.up.get().is_none() && self.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        // A boot under way is waited for: it is ended when it is whole.
        let Ok(up) = self.up().await else { return Ok(()) };
        let machine = up.machine.lock().unwrap_or_else(PoisonError::into_inner).take();
        match machine {
            Some(machine) => machine.end().await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Task for Service {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> TtrpcResult<CreateTaskResponse> {
        if !request.checkpoint.is_empty() {
            return Err(refusal(
                Code::UNIMPLEMENTED,
                "a container in a VM cannot be restored from a checkpoint",
            ));
        }
        tracing::info!(id = request.id, "create");
        let mut response = CreateTaskResponse::new();
        response.pid = self.created(&request).await?;
        Ok(response)
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> TtrpcResult<StartResponse> {
        let up = self.there()?;
        up.pod
            .start(&name(&request.id, &request.exec_id))
            .await
            .answered()?;
        let mut response = StartResponse::new();
        response.pid = up.hypervisor;
        Ok(response)
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> TtrpcResult<DeleteResponse> {
        let up = self.there()?;
        let name = name(&request.id, &request.exec_id);
        let bundle = up.pod.state(&name).answered()?.bundle;
        // Known until everything is given back, so that what fails can be tried again.
        up.pod.release(&name).await.answered()?;
        if name.exec.is_none() {
            tokio::task::block_in_place(|| rootfs::unmount(&bundle)).answered()?;
        }
        let exit = up.pod.delete(&name).await.answered()?;
        let mut response = DeleteResponse::new();
        response.pid = up.hypervisor;
        response.exit_status = exit.status.into();
        response.exited_at = Some(timestamp(exit.at)).into();
        Ok(response)
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> TtrpcResult<Empty> {
        let process = serde_json::from_slice(&request.spec.value)
            .context("the process to be executed")
            .map_err(|error| refusal(Code::INVALID_ARGUMENT, format!("{error:#}")))?;
        let endpoints =
            convert::endpoints(&request.stdin, &request.stdout, &request.stderr, request.terminal);
        let name = name(&request.id, &request.exec_id);
        self.pod()?.exec(&name, process, endpoints).answered()?;
        Ok(Empty::new())
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> TtrpcResult<Empty> {
        let signal = i32::try_from(request.signal)
            .map_err(|_| refusal(Code::INVALID_ARGUMENT, format!("{} is no signal", request.signal)))?;
        let name = name(&request.id, &request.exec_id);
        self.pod()?.kill(&name, signal, request.all).await.answered()?;
        Ok(Empty::new())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> TtrpcResult<Empty> {
        let cells = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let (rows, columns) = (cells(request.height), cells(request.width));
        let name = name(&request.id, &request.exec_id);
        self.pod()?.resize(&name, rows, columns).await.answered()?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> TtrpcResult<Empty> {
        if request.stdin {
            let name = name(&request.id, &request.exec_id);
            self.pod()?.close_stdin(&name).answered()?;
        }
        Ok(Empty::new())
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> TtrpcResult<StateResponse> {
        let up = self.there()?;
        let state = up.pod.state(&name(&request.id, &request.exec_id)).answered()?;
        let mut response = StateResponse::new();
        response.id = request.id;
        response.exec_id = request.exec_id;
        response.bundle = state.bundle.to_string_lossy().into_owned();
        response.pid = up.hypervisor;
        response.status = convert::status(state.status).into();
        response.stdin = state.endpoints.stdin.unwrap_or_default();
        response.stdout = state.endpoints.stdout.unwrap_or_default();
        response.stderr = state.endpoints.stderr.unwrap_or_default();
        response.terminal = state.endpoints.terminal;
        if let Status::Stopped(exit) = state.status {
            response.exit_status = exit.status.into();
            response.exited_at = Some(timestamp(exit.at)).into();
        }
        Ok(response)
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> TtrpcResult<WaitResponse> {
        let exit = self
            .pod()?
            .wait(&name(&request.id, &request.exec_id))
            .await
            .answered()?;
        let mut response = WaitResponse::new();
        response.exit_status = exit.status.into();
        response.exited_at = Some(timestamp(exit.at)).into();
        Ok(response)
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> TtrpcResult<PidsResponse> {
        let mut response = PidsResponse::new();
        for pid in self.pod()?.pids(&request.id).await.answered()? {
            let mut process = ProcessInfo::new();
            process.pid = pid;
            response.processes.push(process);
        }
        Ok(response)
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> TtrpcResult<Empty> {
        self.pod()?.pause(&request.id).await.answered()?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> TtrpcResult<Empty> {
        self.pod()?.resume(&request.id).await.answered()?;
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> TtrpcResult<Empty> {
        let resources = serde_json::from_slice(&request.resources.value)
            .context("the new limits")
            .map_err(|error| refusal(Code::INVALID_ARGUMENT, format!("{error:#}")))?;
        self.pod()?.update(&request.id, &resources).await.answered()?;
        Ok(Empty::new())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> TtrpcResult<StatsResponse> {
        let figures = self.pod()?.statistics(&request.id).await.answered()?;
        let packed = metrics::packed(&figures).context("packing the figures");
        let mut response = StatsResponse::new();
        response.stats = Some(packed.answered()?).into();
        Ok(response)
    }

    async fn connect(&self, _: &TtrpcContext, _: ConnectRequest) -> TtrpcResult<ConnectResponse> {
        let mut response = ConnectResponse::new();
        response.shim_pid = std::process::id();
        response.task_pid = self.up.get().map_or(0, |up| up.hypervisor);
        response.version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(response)
    }

    async fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> TtrpcResult<Empty> {
        let others = self.up.get().is_some_and(|up| !up.pod.names().is_empty());
        if others && !request.now {
            return Ok(Empty::new());
        }
        tracing::info!("shutdown");
        let ended = self.shut_down().await;
        let signal = self.ended.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LAST_WORD).await;
            signal.signal();
        });
        ended.answered()?;
        Ok(Empty::new())
    }
}
