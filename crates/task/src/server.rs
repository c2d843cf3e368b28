//! The server of the task API on a socket.

use std::{os::unix::net::UnixListener, sync::Arc};

use containerd_shim::{
    TtrpcResult,
    protos::{
        shim_async::create_task,
        ttrpc::{
            self,
            r#async::{Server, transport::Listener},
        },
    },
};

use crate::{Owner, Service, carried::Carried};

/// The names of the task API. The messages of both versions are the same.
const VERSIONS: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// A server that answers until it is shut down. What a client has begun that vanishes is brought to its end.
///
/// # Errors
/// The system's.
pub async fn serve<O: Owner>(listener: UnixListener, service: Arc<Service<O>>) -> TtrpcResult<Server> {
    let listener = Listener::try_from(listener).map_err(|error| ttrpc::Error::Socket(error.to_string()))?;
    let mut server = Server::new().add_listener(listener);
    for version in VERSIONS {
        let methods = create_task(Arc::new(Carried(service.clone()))).into_values();
        server = server.register_service(methods.map(|service| (version.to_owned(), service)).collect());
    }
    server.start().await?;
    Ok(server)
}
