//! What an interface is, in the words of a request to the guest.

use std::net::IpAddr;

use cofferdam_netlink::{Link, MacAddress, Neighbour, Netlink, NetlinkError, Prefix, Route};
use cofferdam_protocol::settings::{IpConfig, Neighbor, Network, Route as RouteRequest};

/// An interface as a guest's adapter is to be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its hardware address: the adapter's, and what the guest finds it by.
    pub mac: MacAddress,
    /// The largest packet, in bytes: what the hypervisor tells the guest of its adapter.
    pub mtu: u32,
    /// Its addresses, but for those an interface gives itself.
    pub addresses: Vec<Prefix>,
    /// The routes that somebody has entered over it.
    pub routes: Vec<Route>,
    /// The neighbours that somebody has entered for good.
    pub neighbours: Vec<Neighbour>,
    /// Who is asked for names. An interface does not say; it is empty until somebody knows (a CNI result, a pod's settings, a
    /// `resolv.conf`).
    pub resolver: Resolver,
}

impl Description {
    pub(crate) fn of(kernel: &mut Netlink, link: &Link, mac: MacAddress) -> Result<Self, NetlinkError> {
        Ok(Self {
            mac,
            mtu: link.mtu,
            addresses: kernel.addresses(link.index)?,
            routes: kernel.routes(link.index)?,
            neighbours: kernel.neighbours(link.index)?,
            resolver: Resolver::default(),
        })
    }

    /// The request that adds such an adapter, named `id` (GCS bridge protocol §7.6). Older guests read its first address and
    /// the gateway of its first default route only.
    #[must_use]
    pub fn settings(&self, id: &str) -> Network {
        let first = self.addresses.first();
        let default = self.routes.iter().find(|route| {
            let alike =
                first.is_some_and(|first| first.address().is_ipv4() == route.destination.address().is_ipv4());
            route.destination.length() == 0 && alike
        });
        let servers: Vec<_> = self.resolver.servers.iter().map(ToString::to_string).collect();
        Network {
            id: id.to_owned(),
            mac_address: self.mac.to_string().replace(':', "-"),
            ip_address: first.map(|first| first.address().to_string()).unwrap_or_default(),
            prefix_length: first.map(|first| first.length()).unwrap_or_default(),
            gateway_address: default
                .and_then(|route| Some(route.gateway?.to_string()))
                .unwrap_or_default(),
            ip_configs: self
                .addresses
                .iter()
                .map(|prefix| IpConfig {
                    ip_address: prefix.address().to_string(),
                    prefix_length: prefix.length(),
                })
                .collect(),
            routes: self.routes.iter().map(route).collect(),
            dns_suffix: self.resolver.search.join(","),
            dns_server_list: servers.join(","),
            neighbors: self
                .neighbours
                .iter()
                .map(|neighbour| Neighbor {
                    ip_address: neighbour.address.to_string(),
                    mac_address: neighbour.mac.to_string(),
                })
                .collect(),
            ..Network::default()
        }
    }
}

fn route(route: &Route) -> RouteRequest {
    RouteRequest {
        next_hop: route
            .gateway
            .map(|gateway| gateway.to_string())
            .unwrap_or_default(),
        destination_prefix: route.destination.to_string(),
        // The protocol has 16 bits; what is beyond them comes last all the same.
        metric: u16::try_from(route.metric).unwrap_or(u16::MAX),
    }
}

/// Who is asked for names, and in which domains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers, the first to be asked first.
    pub servers: Vec<IpAddr>,
    /// Domains in which names are looked up.
    pub search: Vec<String>,
}

impl Resolver {
    /// Reads a `resolv.conf` (`resolv.conf(5)`). Lines that say something else, or nothing that can be read, are skipped, as
    /// the C library does; servers with a scope (`fe80::1%eth0`) are of the host alone.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver
                    .servers
                    .extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
                // The last of them counts.
                Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        resolver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_both_forms_and_what_only_the_newer_one_has() {
        let description = Description {
            mac: "0a:58:0a:f4:00:05".parse().unwrap(),
            mtu: 1450,
            addresses: vec!["10.244.0.5/24".parse().unwrap(), "fd00::5/64".parse().unwrap()],
            routes: vec![
                Route {
                    destination: "10.244.0.0/16".parse().unwrap(),
                    gateway: None,
                    metric: 70_000,
                    on_link: false,
                },
                Route {
                    destination: "0.0.0.0/0".parse().unwrap(),
                    gateway: Some("10.244.0.1".parse().unwrap()),
                    metric: 0,
                    on_link: false,
                },
            ],
            neighbours: vec![Neighbour {
                address: "10.244.0.1".parse().unwrap(),
                mac: "02:00:00:00:00:01".parse().unwrap(),
            }],
            resolver: Resolver::parse(
                "# x\nsearch a.test b.test\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\noptions ndots:5\n",
            ),
        };
        let told = description.settings("nic");
        assert_eq!((told.ip_address.as_str(), told.prefix_length), ("10.244.0.5", 24));
        assert_eq!(told.gateway_address, "10.244.0.1");
        assert_eq!(told.mac_address, "0a-58-0a-f4-00-05");
        assert_eq!(told.ip_configs.len(), 2);
        assert_eq!(told.routes[0].destination_prefix, "10.244.0.0/16");
        assert_eq!(
            (told.routes[0].next_hop.as_str(), told.routes[0].metric),
            ("", u16::MAX)
        );
        assert_eq!(told.neighbors[0].ip_address, "10.244.0.1");
        assert_eq!(
            (told.dns_server_list.as_str(), told.dns_suffix.as_str()),
            ("10.96.0.10", "a.test,b.test")
        );
    }
}
