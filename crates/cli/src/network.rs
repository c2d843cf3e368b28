//! What network a container gets: the adapters for QEMU, and what the guest is told about them.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context, Result, bail};
use cofferdam_network::{Adapters, Resolver, Tap, interfaces};
use cofferdam_owner::Owned;
use cofferdam_protocol::settings::{IpConfig, ModificationRequest, Network, RequestType, Resource, Route};
use cofferdam_qemu::{Nic, NicLink, USER_GATEWAY, USER_GUEST, USER_NAME_SERVER, USER_PREFIX_LENGTH};
use cofferdam_vm::UtilityVm;

use crate::{
    args::{NetworkArgs, NetworkKind},
    run::told,
};

/// The adapter's hardware address on QEMU's own network. It is alone there, so every VM's may have the same.
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x0a, 0x02, 0x0f];
/// Its name between host and guest.
const ID: &str = "3f1c4dcb-0a02-4f15-8a02-5254000a020f";
/// Whom this host asks for names.
const RESOLVER: &str = "/etc/resolv.conf";

/// Refuses options that contradict each other, before anything is looked for.
pub(crate) fn check(args: &NetworkArgs, no_vm: bool) -> Result<()> {
    let wish = match (args.needs(), &args.network) {
        (Some(option), Some(NetworkKind::None)) => {
            bail!("{option} needs a network, and --network none takes it away")
        }
        (Some("--publish"), Some(NetworkKind::Namespace(_))) => {
            bail!("--publish is for --network user: who made the network namespace also leads ports into it")
        }
        (Some(option), _) => option,
        (None, None | Some(NetworkKind::None)) => return Ok(()),
        (None, Some(_)) => "--network",
    };
    if no_vm {
        bail!(
            "{wish} is for containers in a utility VM: with --no-vm the container has a network namespace of its own, \
             which this command connects to nothing"
        );
    }
    Ok(())
}

/// The network of one VM. Dropping it gives interfaces their places back, so far as that can be done.
pub(crate) struct VmNetwork {
    /// The adapters for QEMU.
    pub(crate) nics: Vec<Nic>,
    /// What the guest is told of each.
    requests: Vec<ModificationRequest>,
    adapters: Adapters,
}

impl VmNetwork {
    /// Makes ready what is meant; `usual` where nothing is said. What of the host is changed is noted before it is.
    pub(crate) fn prepare(args: &NetworkArgs, usual: NetworkKind, owned: &mut Owned) -> Result<Self> {
        match wanted(args, usual) {
            NetworkKind::None => Ok(Self {
                nics: Vec::new(),
                requests: Vec::new(),
                adapters: Adapters::default(),
            }),
            NetworkKind::User => {
                let forwards = args.publish.iter().flat_map(|ports| ports.0.clone()).collect();
                let nic = Nic {
                    mac: MAC,
                    mtu: None,
                    link: NicLink::User { forwards },
                };
                let request = ModificationRequest {
                    request_type: RequestType::Add,
                    resource: Resource::Network(settings(args)),
                };
                Ok(Self {
                    nics: vec![nic],
                    requests: vec![request],
                    adapters: Adapters::default(),
                })
            }
            NetworkKind::Namespace(path) => Self::in_place_of(args, &path, owned),
        }
    }

    fn in_place_of(args: &NetworkArgs, namespace: &Path, owned: &mut Owned) -> Result<Self> {
        let names = interfaces(namespace).map_err(told)?;
        if names.is_empty() {
            bail!(
                "the network namespace {} has no Ethernet interface that is up",
                namespace.display()
            );
        }
        owned.note_redirected(namespace, &names)?;
        let mut adapters = Adapters::join(namespace, &names).map_err(told)?;
        owned.note_devices(&adapters)?;
        adapters.ask(&resolver(args));
        let nic = |tap: &Tap| {
            let description = tap.description();
            Nic::on_tap(description.mac.0, description.mtu, tap.device())
        };
        Ok(Self {
            nics: adapters.taps().map(nic).collect(),
            requests: adapters.requests(),
            adapters,
        })
    }

    /// What the guest is told of each adapter.
    pub(crate) fn settings(&self) -> impl Iterator<Item = &Network> {
        self.requests
            .iter()
            .filter_map(|request| match &request.resource {
                Resource::Network(settings) => Some(settings),
                _ => None,
            })
    }

    /// Has the guest configure its adapters.
    pub(crate) async fn configure(&self, vm: &UtilityVm) -> Result<()> {
        for request in &self.requests {
            let configured = vm.bridge().modify(request.clone()).await;
            configured
                .map_err(told)
                .context("configuring the utility VM's network")?;
        }
        Ok(())
    }

    /// Gives interfaces their places back, once the VM is gone.
    pub(crate) fn close(self) -> Result<()> {
        let removed = self.adapters.remove().map_err(told);
        removed.context("giving back what the network took")
    }
}

/// What kind of network is meant; `usual` where nothing is said.
fn wanted(args: &NetworkArgs, usual: NetworkKind) -> NetworkKind {
    match (&args.network, args.needs()) {
        (Some(kind), _) => kind.clone(),
        (None, Some(_)) => NetworkKind::User,
        (None, None) => usual,
    }
}

/// Whom a guest in a network namespace asks: whom the user says, else whom this host asks, but for servers of its own, which
/// are nobody there.
fn resolver(args: &NetworkArgs) -> Resolver {
    let mut resolver = Resolver::parse(&fs::read_to_string(RESOLVER).unwrap_or_default());
    resolver.servers.retain(|server| !server.is_loopback());
    if !args.dns.is_empty() {
        resolver.servers.clone_from(&args.dns);
    }
    if !args.dns_search.is_empty() {
        resolver.search.clone_from(&args.dns_search);
    }
    resolver
}

/// Both forms, whichever the guest reads (GCS bridge protocol §7.6).
fn settings(args: &NetworkArgs) -> Network {
    let servers: Vec<String> = match args.dns.as_slice() {
        [] => vec![USER_NAME_SERVER.to_string()],
        servers => servers.iter().map(IpAddr::to_string).collect(),
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
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        network: NetworkArgs,
    }

    fn args(words: &str) -> NetworkArgs {
        Words::parse_from(["run"].into_iter().chain(words.split_whitespace())).network
    }

    fn refused(words: &str, no_vm: bool) -> String {
        check(&args(words), no_vm).unwrap_err().to_string()
    }

    #[test]
    fn what_needs_a_network_brings_one_and_contradictions_are_refused() {
        let kind = |words: &str| wanted(&args(words), NetworkKind::None);
        assert_eq!(kind(""), NetworkKind::None);
        assert_eq!(kind("--dns 192.0.2.1"), NetworkKind::User);
        assert_eq!(kind("-p 8080:80"), NetworkKind::User);
        let namespace = NetworkKind::Namespace("/run/netns/pod".into());
        assert_eq!(kind("--dns 192.0.2.1 --network ns:/run/netns/pod"), namespace);
        check(&args("--dns 192.0.2.1 --network ns:/run/netns/pod"), false).unwrap();
        assert_eq!(
            refused("--dns 192.0.2.1 --network none", false),
            "--dns needs a network, and --network none takes it away"
        );
        let text = refused("-p 8080:80 --network ns:/run/netns/pod", false);
        assert!(text.starts_with("--publish is for --network user"), "{text}");
    }

    #[test]
    fn name_servers_of_the_user_take_the_place_of_the_hosts() {
        assert_eq!(settings(&args("")).dns_server_list, "10.0.2.3");
        let own = "--dns 192.0.2.1 --dns fd00::1 --dns-search a.test --dns-search b.test";
        let told = settings(&args(own));
        assert_eq!(told.dns_server_list, "192.0.2.1,fd00::1");
        assert_eq!(told.dns_suffix, "a.test,b.test");
        assert_eq!(told.mac_address, "52-54-00-0a-02-0f");
        let resolver = resolver(&args(own));
        assert_eq!((resolver.servers.len(), resolver.search.len()), (2, 2));
    }

    #[test]
    fn without_a_vm_a_network_is_refused_by_the_option_that_asks_for_it() {
        check(&args(""), true).unwrap();
        check(&args("--network none"), true).unwrap();
        for (words, option) in [
            ("--network user", "--network"),
            ("--network ns:/run/netns/pod", "--network"),
            ("-p 8080:80", "--publish"),
        ] {
            let text = refused(words, true);
            let expected = format!("{option} is for containers in a utility VM");
            assert!(text.starts_with(&expected), "{text}");
        }
    }
}
