//! The service as a server calls it: what a client began is brought to its end when the client vanishes.
//!
//! The server drops the work on a request together with its connection, or when the client's time is over. A start that
//! was dropped half way would leave a container that is neither started nor startable.

use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim::{
    Task, TtrpcContext, TtrpcResult,
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
        CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
        PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
        StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
        UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    protos::ttrpc::Code,
};

use crate::{Owner, Service, convert::refusal};

/// A service whose work outlives the connection that asked for it.
pub(crate) struct Carried<O>(pub(crate) Arc<Service<O>>);

macro_rules! carried {
    ($($method:ident($request:ty) -> $response:ty;)*) => {
        #[async_trait]
        impl<O: Owner> Task for Carried<O> {
            $(async fn $method(&self, context: &TtrpcContext, request: $request) -> TtrpcResult<$response> {
                let service = self.0.clone();
                let context = copy(context);
                let work = tokio::spawn(async move { service.$method(&context, request).await });
                let told = |error| refusal(Code::INTERNAL, format!(concat!(stringify!($method), ": {}"), error));
                work.await.unwrap_or_else(|error| Err(told(error)))
            })*

            /// Nothing is lost with whoever only waits.
            async fn wait(&self, context: &TtrpcContext, request: WaitRequest) -> TtrpcResult<WaitResponse> {
                self.0.wait(context, request).await
            }
        }
    };
}

carried! {
    state(StateRequest) -> StateResponse;
    create(CreateTaskRequest) -> CreateTaskResponse;
    start(StartRequest) -> StartResponse;
    delete(DeleteRequest) -> DeleteResponse;
    pids(PidsRequest) -> PidsResponse;
    pause(PauseRequest) -> Empty;
    resume(ResumeRequest) -> Empty;
    checkpoint(CheckpointTaskRequest) -> Empty;
    kill(KillRequest) -> Empty;
    exec(ExecProcessRequest) -> Empty;
    resize_pty(ResizePtyRequest) -> Empty;
    close_io(CloseIORequest) -> Empty;
    update(UpdateTaskRequest) -> Empty;
    stats(StatsRequest) -> StatsResponse;
    connect(ConnectRequest) -> ConnectResponse;
    shutdown(ShutdownRequest) -> Empty;
}

fn copy(context: &TtrpcContext) -> TtrpcContext {
    TtrpcContext {
        mh: context.mh,
        metadata: context.metadata.clone(),
        timeout_nano: context.timeout_nano,
        connection_data: context.connection_data.clone(),
    }
}
