//! `start`: finds or makes the process that serves a container, and tells where it listens.

use std::{env, fs, path::Path};

use anyhow::{Context, Result};
use containerd_shim::{Flags, StartOpts, asynchronous::spawn, socket_address};

use crate::address;

/// Answers with a bare address, which every containerd from 1.6 on understands, and takes for version 2 of the API.
pub(crate) fn start(flags: &Flags) -> Result<()> {
    let spec = address::spec_of(Path::new("."))?;
    let group = address::group(&spec, &flags.id);
    let shared = socket_address(&flags.address, &flags.namespace, &group);
    let address = if group != flags.id && address::is_served(&shared) {
        shared
    } else {
        spawned(flags, &group)?
    };
    // containerd looks for it here after it was started anew itself.
    fs::write("address", &address).context("writing the bundle's file address")?;
    print!("{address}");
    Ok(())
}

fn spawned(flags: &Flags, group: &str) -> Result<String> {
    let options = StartOpts {
        id: flags.id.clone(),
        publish_binary: flags.publish_binary.clone(),
        address: flags.address.clone(),
        ttrpc_address: env::var("TTRPC_ADDRESS").context("containerd did not say where it takes events")?,
        namespace: flags.namespace.clone(),
        debug: flags.debug,
        ..StartOpts::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // It returns once the new process has let go of its standard output, which it does when it listens.
    runtime
        .block_on(spawn(options, group, Vec::new()))
        .context("starting the process that serves the container")
}
