//! The task API over a pod's containers.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use cofferdam_pod::{NewContainer, Pod, Status};
use containerd_shim::{
    Task, TtrpcContext, TtrpcResult,
    api::{
        CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
        DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest,
        PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse,
        StateRequest, StateResponse, StatsRequest, StatsResponse, UpdateTaskRequest, WaitRequest,
        WaitResponse,
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
}

impl<O: Owner> Service<O> {
    /// For the VM of this owner.
    pub fn new(owner: O) -> Self {
        Self { owner }
    }

    /// The owner.
    pub fn owner(&self) -> &O {
        &self.owner
    }

    /// The VM, if there is one: nothing but a creation makes it be waited for.
    fn there(&self) -> TtrpcResult<Up> {
        let gone = || refusal(Code::NOT_FOUND, "no container was created here");
        self.owner.there().ok_or_else(gone)
    }

    fn pod(&self) -> TtrpcResult<Arc<Pod>> {
        Ok(self.there()?.pod)
    }

    async fn created(&self, request: &CreateTaskRequest) -> TtrpcResult<u32> {
        let bundle = Path::new(&request.bundle);
        let up = self.owner.up().await.answered()?;
        if up.pod.names().contains(&request.id) {
            return Err(refusal(
                Code::ALREADY_EXISTS,
                format!("container {} exists already", request.id),
            ));
        }
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
        if request.spec.type_url == COPY {
            self.pod()?
                .copy(&name, process.to_string(), endpoints)
                .answered()?;
            return Ok(Empty::new());
        }
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
        let resources = document("the new limits", &request.resources.value)?;
        self.pod()?.update(&request.id, &resources).await.answered()?;
        Ok(Empty::new())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> TtrpcResult<StatsResponse> {
        let figures = self.pod()?.statistics(&request.id).await.answered()?;
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

/// A document inside of a message.
fn document(what: &str, bytes: &[u8]) -> TtrpcResult<Value> {
    serde_json::from_slice(bytes).map_err(|error| refusal(Code::INVALID_ARGUMENT, format!("{what}: {error}")))
}
