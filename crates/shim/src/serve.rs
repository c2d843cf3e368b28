//! The process that serves containers: it listens, boots its VM meanwhile, and ends when its last container has.

use std::{env, path::Path, sync::Arc};

use anyhow::{Context, Result};
use cofferdam_task::{Owner as _, Service};
use containerd_shim::{Flags, asynchronous::ExitSignal, publisher::RemotePublisher};

use crate::{address, log, owner::ShimOwner};

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
    let owner = ShimOwner::new(flags, &bundle, publisher, ended.clone());
    let service = Arc::new(Service::new(owner));
    let mut server = cofferdam_task::serve(listener, service.clone())
        .await
        .context("serving the task API")?;
    detach()?;
    // A failure is the first container's to be told, which tries again.
    tokio::spawn(async move {
        if let Err(error) = service.owner().up().await {
            tracing::warn!(%error, "the VM did not come up");
        }
    });
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
