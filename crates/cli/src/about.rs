//! What is written down of a container for those who ask: its image, its network, its spec's words, and since when it is
//! there.

use std::{path::Path, sync::Arc, time::SystemTime};

use anyhow::{Context as _, Result};
use cofferdam_observe::{Events, rfc3339};
use cofferdam_owner::{About, Entry, Owned};
use cofferdam_plan::Spec;
use cofferdam_pod::{Event, Pod};
use cofferdam_protocol::settings::Network;
use cofferdam_qemu::{Nic, NicLink};
use serde_json::{Value, json};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinHandle};

use crate::{
    args::{RunArgs, Target},
    network::VmNetwork,
};

/// Writes it to the owner's directory, before anything of the container is there.
pub(crate) fn note(
    dir: &Path,
    args: &RunArgs,
    spec: &Spec,
    bundle: &Path,
    network: Option<&VmNetwork>,
) -> Result<()> {
    let about = About {
        image: match args.target() {
            Ok(Target::Image { image, .. }) => Some(image),
            _ => None,
        },
        oci_version: spec.oci_version().to_owned(),
        annotations: spec.annotations(),
        rootfs: spec
            .document()
            .pointer("/root/path")
            .and_then(Value::as_str)
            .map(|path| bundle.join(path).to_string_lossy().into_owned()),
        network: network.map(described),
        created_at: Some(rfc3339(SystemTime::now())),
        started_at: None,
    };
    Ok(about.write(dir)?)
}

/// A container's events: told to whoever listens, and noted in what is written down of it.
pub(crate) struct Followed {
    events: Events,
    noting: JoinHandle<()>,
}

impl Followed {
    /// Opens the socket for those who listen.
    pub(crate) fn serve(owned: &Owned, pod: &Arc<Pod>, events: UnboundedReceiver<Event>) -> Result<Self> {
        let (events, passed_on) =
            Events::pass_on(owned.dir(), events).context("opening the socket for events")?;
        let noting = tokio::spawn(follow(owned.entry(), pod.clone(), passed_on));
        Ok(Self { events, noting })
    }

    /// Tells the last of them. Nothing is written any more afterwards.
    pub(crate) async fn finish(self) {
        self.events.finish().await;
        // It ends with the events, and panics never.
        let _ = self.noting.await;
    }
}

/// Notes since when the owner's container is there, and since when it runs.
async fn follow(entry: Entry, pod: Arc<Pod>, mut events: UnboundedReceiver<Event>) {
    let id = entry.id();
    while let Some(event) = events.recv().await {
        if !matches!(event, Event::Created { .. } | Event::Started { .. }) {
            continue;
        }
        let Some(own) = pod.inspect().into_iter().find(|container| container.id == id) else {
            continue;
        };
        let mut about = entry.about().unwrap_or_default();
        about.created_at = Some(rfc3339(own.created_at));
        about.started_at = own.init.started_at.map(rfc3339);
        // It is for those who come later; the container is none the worse for it.
        if let Err(error) = about.write(entry.dir()) {
            tracing::warn!(%error, "noting what is known of {id}");
        }
    }
}

/// A network as it is shown: what it is, its adapters, and ports of this host that lead into it.
fn described(network: &VmNetwork) -> Value {
    let links = network.nics.iter().map(|nic| &nic.link);
    let kind = match links.clone().next() {
        None => "none",
        Some(NicLink::User { .. }) => "user",
        Some(_) => "namespace",
    };
    let forwards = links.flat_map(|link| match link {
        NicLink::User { forwards } => forwards.as_slice(),
        _ => &[],
    });
    let published = forwards.map(|forward| {
        json!({
            "protocol": forward.protocol.to_string(),
            "host": forward.host.to_string(),
            "guestPort": forward.guest_port,
        })
    });
    let adapters = network
        .nics
        .iter()
        .zip(network.settings())
        .map(|(nic, request)| adapter(nic, request));
    json!({
        "kind": kind,
        "adapters": adapters.collect::<Vec<_>>(),
        "published": published.collect::<Vec<_>>(),
    })
}

fn adapter(nic: &Nic, request: &Network) -> Value {
    let addresses = request.ip_configs.iter();
    let routes = request.routes.iter();
    let words = |list: &str| -> Vec<String> {
        let words = list.split(',').filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    json!({
        "mac": nic.mac.map(|byte| format!("{byte:02x}")).join(":"),
        "mtu": nic.mtu,
        "addresses": addresses.map(|one| format!("{}/{}", one.ip_address, one.prefix_length)).collect::<Vec<_>>(),
        "routes": routes.map(|one| json!({ "to": one.destination_prefix, "via": one.next_hop })).collect::<Vec<_>>(),
        "nameServers": words(&request.dns_server_list),
        "search": words(&request.dns_suffix),
    })
}
