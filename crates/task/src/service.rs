//! The task API over a pod's containers.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use cofferdam_pod::{NewContainer, Pod, PodError, ProcessName, Status};
use containerd_shim::{
    Task, TtrpcContext, TtrpcResult,
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
        CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
        PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
        StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
        UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    protos::{api::ProcessInfo, ttrpc::Code},
};
use serde_json::Value;

use crate::{
    Owner, Up,
    convert::{self, Answered, name, refusal, timestamp},
    metrics,
};

/// The type of an `Exec` whose process is no program of the container but a copy of its files: its value is the order to
/// the guest's agent, as JSON. All else is as for any further process.
pub const COPY: &str = "io.cofferdam.copy";

/// The task API of one VM.
pub struct Service<O> {
    owner: O,
    /// Whose roots are just being made ready.
    preparing: Mutex<BTreeSet<String>>,
}

impl<O: Owner> Service<O> {
    /// For the VM of this owner.
    pub fn new(owner: O) -> Self {
        Self {
            owner,
            preparing: Mutex::default(),
        }
    }

    /// The owner.
    pub fn owner(&self) -> &O {
        &self.owner
    }

    /// The VM in which this container would be, if there is one: nothing but a creation makes it be waited for.
    fn there(&self, id: &str) -> TtrpcResult<Up> {
        match self.owner.there() {
            Some(up) => Ok(up),
            None => Err(PodError::NoContainer(id.to_owned())).answered(),
        }
    }

    fn pod(&self, id: &str) -> TtrpcResult<Arc<Pod>> {
        Ok(self.there(id)?.pod)
    }

    /// Takes a container's name until its root has been made ready, and given back if it could not be created.
    fn reserve(&self, pod: &Pod, id: &str) -> TtrpcResult<Reserved<'_>> {
        let mut preparing = self.preparing();
        pod.takes(id).answered()?;
        if !preparing.insert(id.to_owned()) {
            return Err(PodError::Exists(ProcessName::init(id))).answered();
        }
        Ok(Reserved {
            names: &self.preparing,
            id: id.to_owned(),
        })
    }

    fn preparing(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // A name is added or removed as a whole.
        self.preparing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn created(&self, request: &CreateTaskRequest) -> TtrpcResult<u32> {
        let bundle = Path::new(&request.bundle);
        let up = self.owner.up().await.answered()?;
        let _reserved = self.reserve(&up.pod, &request.id)?;
        let prepared = tokio::task::block_in_place(|| self.owner.prepare(bundle, &request.rootfs));
        let spec = prepared.answered()?;
        let new = NewContainer {
            id: &request.id,
            spec: &spec,
            bundle,
            endpoints: convert::endpoints(&request.stdin, &request.stdout, &request.stderr, request.terminal),
            check_image: &cofferdam_image::check,
        };
        let created = up.pod.create(new).await.answered();
        if created.is_err()
            && let Err(error) = tokio::task::block_in_place(|| self.owner.clear(bundle))
        {
            tracing::error!(%error, "while undoing container {}", request.id);
        }
        created.map(|()| up.hypervisor)
    }
}

/// A name that is taken.
struct Reserved<'a> {
    names: &'a Mutex<BTreeSet<String>>,
    id: String,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.remove(&self.id);
    }
}

#[async_trait]
impl<O: Owner> Task for Service<O> {
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
        let up = self.there(&request.id)?;
        let name = name(&request.id, &request.exec_id);
        match self.owner.streams(&name) {
            Some(streams) => up.pod.start_with(&name, streams).await,
            None => up.pod.start(&name).await,
        }
        .answered()?;
        let mut response = StartResponse::new();
        response.pid = up.hypervisor;
        Ok(response)
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> TtrpcResult<DeleteResponse> {
        let up = self.there(&request.id)?;
        let name = name(&request.id, &request.exec_id);
        let bundle = up.pod.state(&name).answered()?.bundle;
        // Known until everything is given back, so that what fails can be tried again.
        up.pod.release(&name).await.answered()?;
        if name.exec.is_none() {
            tokio::task::block_in_place(|| self.owner.clear(&bundle)).answered()?;
        }
        let exit = up.pod.delete(&name).await.answered()?;
        let mut response = DeleteResponse::new();
        response.pid = up.hypervisor;
        response.exit_status = exit.status.into();
        response.exited_at = Some(timestamp(exit.at)).into();
        Ok(response)
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> TtrpcResult<Empty> {
        let process = document("the process to be executed", &request.spec.value)?;
        let endpoints =
            convert::endpoints(&request.stdin, &request.stdout, &request.stderr, request.terminal);
        let name = name(&request.id, &request.exec_id);
        let pod = self.pod(&request.id)?;
        match request.spec.type_url == COPY {
            true => pod.copy(&name, process.to_string(), endpoints),
            false => pod.exec(&name, process, endpoints),
        }
        .answered()?;
        Ok(Empty::new())
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> TtrpcResult<Empty> {
        let signal = i32::try_from(request.signal).map_err(|_| {
            refusal(
                Code::INVALID_ARGUMENT,
                format!("there is no signal {}", request.signal),
            )
        })?;
        let name = name(&request.id, &request.exec_id);
        self.pod(&request.id)?
            .kill(&name, signal, request.all)
            .await
            .answered()?;
        Ok(Empty::new())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> TtrpcResult<Empty> {
        let cells = |number: u32| {
            let told = || format!("a terminal has no {number} cells in a row or column: 65535 at most");
            u16::try_from(number).map_err(|_| refusal(Code::INVALID_ARGUMENT, told()))
        };
        let (rows, columns) = (cells(request.height)?, cells(request.width)?);
        let name = name(&request.id, &request.exec_id);
        self.pod(&request.id)?
            .resize(&name, rows, columns)
            .await
            .answered()?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> TtrpcResult<Empty> {
        if request.stdin {
            let name = name(&request.id, &request.exec_id);
            self.pod(&request.id)?.close_stdin(&name).answered()?;
        }
        Ok(Empty::new())
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> TtrpcResult<StateResponse> {
        let up = self.there(&request.id)?;
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
            .pod(&request.id)?
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
        for pid in self.pod(&request.id)?.pids(&request.id).await.answered()? {
            let mut process = ProcessInfo::new();
            process.pid = pid;
            response.processes.push(process);
        }
        Ok(response)
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> TtrpcResult<Empty> {
        self.pod(&request.id)?.pause(&request.id).await.answered()?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> TtrpcResult<Empty> {
        self.pod(&request.id)?.resume(&request.id).await.answered()?;
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> TtrpcResult<Empty> {
        let resources = document("the new limits", &request.resources.value)?;
        self.pod(&request.id)?
            .update(&request.id, &resources)
            .await
            .answered()?;
        Ok(Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> TtrpcResult<Empty> {
        Err(refusal(
            Code::UNIMPLEMENTED,
            "a container in a VM cannot be checkpointed",
        ))
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> TtrpcResult<StatsResponse> {
        let figures = self.pod(&request.id)?.statistics(&request.id).await.answered()?;
        let packed = metrics::packed(&figures)
            .map_err(|error| refusal(Code::INTERNAL, format!("packing the figures: {error}")))?;
        let mut response = StatsResponse::new();
        response.stats = Some(packed).into();
        Ok(response)
    }

    async fn connect(&self, _: &TtrpcContext, _: ConnectRequest) -> TtrpcResult<ConnectResponse> {
        let mut response = ConnectResponse::new();
        response.shim_pid = std::process::id();
        response.task_pid = self.owner.there().map_or(0, |up| up.hypervisor);
        response.version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(response)
    }

    async fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> TtrpcResult<Empty> {
        let others = self.owner.there().is_some_and(|up| !up.pod.names().is_empty());
        if others && !request.now {
            return Ok(Empty::new());
        }
        tracing::info!("shutdown");
        self.owner.shut_down().await.answered()?;
        Ok(Empty::new())
    }
}

/// A document inside of a message, which is an object.
fn document(what: &str, bytes: &[u8]) -> TtrpcResult<Value> {
    let refused = |why: String| refusal(Code::INVALID_ARGUMENT, format!("{what}: {why}"));
    match serde_json::from_slice(bytes) {
        Ok(document @ Value::Object(_)) => Ok(document),
        Ok(_) => Err(refused("it is no object".to_owned())),
        Err(error) => Err(refused(error.to_string())),
    }
}
