//! Network adapters: the `Network` resource of ModifySettings (GCS bridge protocol §7.6).
//!
//! The original finds an adapter by its instance on the virtual machine bus. Here the hypervisor may be any, so an adapter
//! is found by its hardware address, which the host has chosen for it. All adapters stay in the VM's own network namespace,
//! which every container of the VM is in: `NamespaceID` is of no further meaning here.

mod namespace;
mod resolver;
mod settings;
mod sysctl;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cofferdam_netlink::{Link, MacAddress, Netlink, NetlinkError};
use cofferdam_protocol::settings::Network as Request;
pub(crate) use namespace::share as share_namespace;
use serde_json::Value;
use settings::Adapter;

use crate::{error::Result, storage::scsi::wait};

/// How long an adapter may take to appear: its driver looks at it after the host has plugged it in.
const LIMIT: Duration = Duration::from_secs(5);
/// Index of `lo` in every network namespace.
const LOOPBACK_INDEX: i32 = 1;
/// The least MTU of IPv4 (RFC 791); below it an interface loses its addresses.
const MIN_MTU: u32 = 68;

/// Brings `lo` up.
pub(crate) fn loopback_up() -> Result<()> {
    Ok(Netlink::open()?.set_link(LOOPBACK_INDEX, true, None)?)
}

/// The VM's adapters, so far as the host has told of them.
#[derive(Default)]
pub(crate) struct Network {
    /// By the host's name for them, in lower case.
    adapters: Mutex<BTreeMap<String, Adapter>>,
}

impl Network {
    /// Waits for the adapter and configures it. Repeating it is no error.
    pub(crate) fn add(&self, request: &Request) -> Result<()> {
        let adapter = Adapter::of(request)?;
        let device = format!("network adapter {}", adapter.mac);
        let link = wait(&device, LIMIT, || {
            find(adapter.mac)
                .map_err(|error| error.to_string())?
                .ok_or_else(|| "no interface has this hardware address".to_owned())
        })?;
        let mut kernel = Netlink::open()?;
        let configured = configure(&mut kernel, &link, &adapter);
        if let Err(error) = configured {
            // Half a configuration is worse than none: traffic would take ways nobody meant.
            if let Err(second) = take_down(&mut kernel, &link, &adapter) {
                tracing::warn!(interface = link.name, %second, "a half-configured adapter stays up");
            }
            return Err(error.into());
        }
        tracing::info!(interface = link.name, %adapter.mac, addresses = ?adapter.addresses, "network adapter added");
        self.lock().insert(key(request), adapter);
        Ok(())
    }

    /// Takes the adapter down, if it is still there, and forgets it. An unknown one is no error.
    pub(crate) fn remove(&self, request: &Request) -> Result<()> {
        let key = key(request);
        let Some(adapter) = self.lock().get(&key).cloned() else {
            return Ok(());
        };
        let mut kernel = Netlink::open()?;
        if let Some(link) = find(adapter.mac)? {
            take_down(&mut kernel, &link, &adapter)?;
        }
        self.lock().remove(&key);
        Ok(())
    }

    /// What a container's document says of the network, made true. It gets the VM's name servers, unless the document says
    /// what its `/etc/resolv.conf` is, or the VM knows no server.
    pub(crate) fn settle(&self, bundle: &Path, spec: &mut Value) -> Result<()> {
        sysctl::settle(spec)?;
        let text = resolver::text(self.lock().values());
        match text {
            Some(text) => resolver::provide(&text, bundle, spec),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Adapter>> {
        self.adapters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host's name for an adapter. A removal may name it without its hardware address.
fn key(request: &Request) -> String {
    let name = if request.id.is_empty() {
        &request.mac_address
    } else {
        &request.id
    };
    name.to_ascii_lowercase()
}

fn find(mac: MacAddress) -> std::result::Result<Option<Link>, NetlinkError> {
    let links = Netlink::open()?.links()?;
    Ok(links
        .into_iter()
        .find(|link| link.mac == Some(mac) && !link.loopback))
}

fn configure(kernel: &mut Netlink, link: &Link, adapter: &Adapter) -> std::result::Result<(), NetlinkError> {
    let mtu = match adapter.encap_overhead {
        0 => None,
        overhead => Some(link.mtu.saturating_sub(overhead.into()).max(MIN_MTU)),
    };
    kernel.set_link(link.index, true, mtu)?;
    for address in &adapter.addresses {
        kernel.add_address(link.index, *address)?;
    }
    for neighbour in &adapter.neighbours {
        kernel.add_neighbour(link.index, *neighbour)?;
    }
    for route in &adapter.routes {
        kernel.add_route(link.index, route)?;
    }
    Ok(())
}

/// Down, its routes and neighbours are gone; its addresses would stay.
fn take_down(kernel: &mut Netlink, link: &Link, adapter: &Adapter) -> std::result::Result<(), NetlinkError> {
    let present = kernel.addresses(link.index)?;
    for address in adapter
        .addresses
        .iter()
        .filter(|address| present.contains(address))
    {
        kernel.remove_address(link.index, *address)?;
    }
    kernel.set_link(link.index, false, None)
}
