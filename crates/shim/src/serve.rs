//! The process that serves containers: it listens, boots its VM meanwhile, and ends when its last container has.

use std::{env, path::Path, sync::Arc};

use anyhow::{Context, Result};
use containerd_shim::{
    Flags,
    asynchronous::ExitSignal,
    protos::{
        shim_async::create_task,
        ttrpc::r#async::{Server, transport::Listener},
    },
    publisher::RemotePublisher,
};

use crate::{address, log, service::Service};

/// The names of the task API. The messages of both versions are the same.
const VERSIONS: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// Serves until it is shut down.
pub(crate) async fn serve(flags: &Flags) -> Result<()> {
    // Not with containerd's process group: it outlives containerd.
    let _ = rustix::process::setsid();
    log::begin(flags.debug);
    let bundle = env::current_dir().context("looking for the bundle")?;
    let events = env::var("TTRPC_ADDRESS").context("containerd did not say where it takes events")?;
    let publisher = RemotePublisher::new(&events)
        .await
        .context("connecting to containerd")?;
    let listener =
        address::listen(&flags.socket).with_context(|| format!("listening on {}", flags.socket))?;
    let ended = Arc::new(ExitSignal::default());
    let service = Arc::new(Service::new(flags, &bundle, publisher, ended.clone()));
    let mut server = Server::new().add_listener(Listener::try_from(listener)?);
    for version in VERSIONS {
        let methods = create_task(service.clone()).into_values();
        server = server.register_service(methods.map(|service| (version.to_owned(), service)).collect());
    }
    server.start().await.context("serving the task API")?;
    detach()?;
    service.prepare();
    ended.wait().await;
    tracing::info!("nothing is left to serve");
    server.shutdown().await.context("ending the task API")?;
    address::remove(&flags.socket);
    Ok(())
}

/// Lets go of the standard output: whoever started this process waits for that.
fn detach() -> Result<()> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open(Path::new("/dev/null"))
        .context("opening /dev/null")?;
    rustix::stdio::dup2_stdout(&null).context("letting go of the standard output")
}
