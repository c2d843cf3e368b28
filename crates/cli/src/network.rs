//! What network a container gets: the adapter for QEMU, and what the guest is told about it.

use anyhow::{Context, Result, bail};
use cofferdam_protocol::settings::{IpConfig, ModificationRequest, Network, RequestType, Resource, Route};
use cofferdam_qemu::{Nic, NicLink, USER_GATEWAY, USER_GUEST, USER_NAME_SERVER, USER_PREFIX_LENGTH};
use cofferdam_vm::UtilityVm;

use crate::{
    args::{NetworkArgs, NetworkKind},
    run::told,
};

/// The adapter's hardware address. It is alone on its network, so every VM's may have the same.
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x0a, 0x02, 0x0f];
/// Its name between host and guest.
const ID: &str = "3f1c4dcb-0a02-4f15-8a02-5254000a020f";

/// Refuses options that contradict each other, before anything is looked for.
pub(crate) fn check(args: &NetworkArgs, no_vm: bool) -> Result<()> {
    let wish = match (args.needs(), args.network) {
        (Some(option), Some(NetworkKind::None)) => {
            bail!("{option} needs a network, and --network none takes it away")
        }
        (Some(option), _) => option,
        (None, Some(NetworkKind::User)) => "--network user",
        (None, _) => return Ok(()),
    };
    if no_vm {
        bail!(
            "{wish} is for containers in a utility VM: with --no-vm the container has a network namespace of its own, \
             which this command connects to nothing"
        );
    }
    Ok(())
}

/// What kind of network is meant; `usual` where nothing is said.
pub(crate) fn wanted(args: &NetworkArgs, usual: NetworkKind) -> NetworkKind {
    match (args.network, args.needs()) {
        (Some(kind), _) => kind,
        (None, Some(_)) => NetworkKind::User,
        (None, None) => usual,
    }
}

/// The adapters for QEMU.
pub(crate) fn nics(args: &NetworkArgs, kind: NetworkKind) -> Vec<Nic> {
    match kind {
        NetworkKind::None => Vec::new(),
        NetworkKind::User => vec![Nic {
            mac: MAC,
            mtu: None,
            link: NicLink::User {
                forwards: args.publish.iter().flat_map(|ports| ports.0.clone()).collect(),
            },
        }],
    }
}

/// Has the guest configure its adapter, if it has one.
pub(crate) async fn configure(args: &NetworkArgs, kind: NetworkKind, vm: &UtilityVm) -> Result<()> {
    if kind == NetworkKind::None {
        return Ok(());
    }
    let request = ModificationRequest {
        request_type: RequestType::Add,
        resource: Resource::Network(settings(args)),
    };
    vm.bridge()
        .modify(request)
        .await
        .map_err(told)
        .context("configuring the utility VM's network")
}

/// Both forms, whichever the guest reads (GCS bridge protocol §7.6).
fn settings(args: &NetworkArgs) -> Network {
    let servers: Vec<String> = match args.dns.as_slice() {
        [] => vec![USER_NAME_SERVER.to_string()],
        servers => servers.iter().map(ToString::to_string).collect(),
    };
    Network {
        id: ID.to_owned(),
        mac_address: MAC.map(|byte| format!("{byte:02x}")).join("-"),
        ip_address: USER_GUEST.to_string(),
        prefix_length: USER_PREFIX_LENGTH,
        gateway_address: USER_GATEWAY.to_string(),
        ip_configs: vec![IpConfig {
            ip_address: USER_GUEST.to_string(),
            prefix_length: USER_PREFIX_LENGTH,
        }],
        routes: vec![Route {
            next_hop: USER_GATEWAY.to_string(),
            destination_prefix: "0.0.0.0/0".to_owned(),
            metric: 0,
        }],
        dns_suffix: args.dns_search.join(","),
        dns_server_list: servers.join(","),
        ..Network::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> NetworkArgs {
        NetworkArgs {
            network: None,
            publish: Vec::new(),
            dns: Vec::new(),
            dns_search: Vec::new(),
        }
    }

    #[test]
    fn what_needs_a_network_brings_one_and_contradictions_are_refused() {
        assert_eq!(wanted(&args(), NetworkKind::None), NetworkKind::None);
        let mut dns = args();
        dns.dns = vec!["1.1.1.1".parse().unwrap()];
        assert_eq!(wanted(&dns, NetworkKind::None), NetworkKind::User);
        check(&dns, false).unwrap();
        dns.network = Some(NetworkKind::None);
        let refused = check(&dns, false).unwrap_err().to_string();
        assert_eq!(refused, "--dns needs a network, and --network none takes it away");
    }

    #[test]
    fn name_servers_of_the_user_take_the_place_of_the_hosts() {
        assert_eq!(settings(&args()).dns_server_list, "10.0.2.3");
        let mut own = args();
        own.dns = vec!["1.1.1.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        own.dns_search = vec!["a.test".into(), "b.test".into()];
        let told = settings(&own);
        assert_eq!(told.dns_server_list, "1.1.1.1,fd00::1");
        assert_eq!(told.dns_suffix, "a.test,b.test");
        assert_eq!(told.mac_address, "52-54-00-0a-02-0f");
    }

    #[test]
    fn without_a_vm_a_network_is_refused_by_the_option_that_asks_for_it() {
        check(&args(), true).unwrap();
        let mut options = args();
        options.network = Some(NetworkKind::None);
        check(&options, true).unwrap();
        options.network = Some(NetworkKind::User);
        let refused = check(&options, true).unwrap_err().to_string();
        assert!(
            refused.starts_with("--network user is for containers in a utility VM"),
            "{refused}"
        );
    }
}
