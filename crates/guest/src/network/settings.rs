//! What a request says of an adapter, in either of its forms.

use std::net::IpAddr;

use cofferdam_netlink::{MacAddress, Neighbour, NetlinkError, Prefix, Route};
use cofferdam_protocol::settings::{Network as Request, Route as RouteRequest};

use crate::error::{AgentError, Result};

/// The metric of routes that a request wants to come last; the original's figure.
const LOW_METRIC: u32 = 500;
/// Most of each list that is taken: far more than a pod has, far less than a frame holds.
const MOST: usize = 256;

/// An adapter as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Adapter {
    pub(super) mac: MacAddress,
    pub(super) addresses: Vec<Prefix>,
    /// In an order in which the kernel takes them: those on the link first, which gateways may be reached by.
    pub(super) routes: Vec<Route>,
    pub(super) neighbours: Vec<Neighbour>,
    pub(super) encap_overhead: u16,
    pub(super) servers: Vec<IpAddr>,
    /// Domains in which names are looked up.
    pub(super) search: Vec<String>,
}

impl Adapter {
    /// Both forms may be there: a host that does not know its guest sends both.
    pub(super) fn of(request: &Request) -> Result<Self> {
        if request.policy_based_routing {
            return Err(AgentError::NotSupported(
                "routing by source address (PolicyBasedRouting) is not supported".into(),
            ));
        }
        for (list, length) in [
            ("IPConfigs", request.ip_configs.len()),
            ("Routes", request.routes.len()),
            ("CofferdamNeighbors", request.neighbors.len()),
        ] {
            if length > MOST {
                return Err(AgentError::Invalid(format!(
                    "{list}: {length} of them; at most {MOST}"
                )));
            }
        }
        let mac = member("MacAddress", request.mac_address.parse())?;
        let addresses = addresses(request)?;
        let routes = routes(request, &addresses)?;
        let neighbours = request
            .neighbors
            .iter()
            .map(|neighbor| {
                Ok(Neighbour {
                    address: ip("CofferdamNeighbors", &neighbor.ip_address)?,
                    mac: member("CofferdamNeighbors", neighbor.mac_address.parse())?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            mac,
            addresses,
            routes,
            neighbours,
            encap_overhead: request.encap_overhead,
            servers: listed(&request.dns_server_list)
                .map(|server| ip("DNSServerList", server))
                .collect::<Result<_>>()?,
            search: listed(&request.dns_suffix)
                .map(|domain| checked_domain(domain).map(str::to_owned))
                .collect::<Result<_>>()?,
        })
    }
}

fn addresses(request: &Request) -> Result<Vec<Prefix>> {
    let mut addresses = Vec::new();
    let older = (!request.ip_address.is_empty()).then_some((&request.ip_address, request.prefix_length));
    let newer = request
        .ip_configs
        .iter()
        .map(|config| (&config.ip_address, config.prefix_length));
    for (address, length) in newer.chain(older) {
        let prefix = member("IPAddress", Prefix::new(ip("IPAddress", address)?, length))?;
        if !addresses.contains(&prefix) {
            addresses.push(prefix);
        }
    }
    Ok(addresses)
}

fn routes(request: &Request, addresses: &[Prefix]) -> Result<Vec<Route>> {
    let low = if request.enable_low_metric { LOW_METRIC } else { 0 };
    let mut routes: Vec<Route> = Vec::new();
    for route in &request.routes {
        routes.push(newer_route(route, low)?);
    }
    if !request.gateway_address.is_empty() {
        let gateway = ip("GatewayAddress", &request.gateway_address)?;
        let destination = everything_like(gateway)?;
        // A host that sends both forms has this one in its list.
        if !routes
            .iter()
            .any(|route| route.destination == destination && route.gateway == Some(gateway))
        {
            routes.push(Route {
                destination,
                gateway: Some(gateway),
                metric: low,
                on_link: false,
            });
        }
    }
    let on_link: Vec<_> = routes
        .iter()
        .filter(|route| route.gateway.is_none())
        .map(|route| route.destination)
        .collect();
    for route in &mut routes {
        // A gateway that is in no network of ours is on the link all the same: where else could it be?
        route.on_link = route.gateway.is_some_and(|gateway| {
            !addresses
                .iter()
                .chain(&on_link)
                .any(|prefix| prefix.contains(gateway))
        });
    }
    routes.sort_by_key(|route| route.gateway.is_some());
    Ok(routes)
}

fn newer_route(route: &RouteRequest, low: u32) -> Result<Route> {
    let destination: Prefix = member("DestinationPrefix", route.destination_prefix.parse())?;
    let gateway = match route.next_hop.as_str() {
        "" => None,
        // How hosts spell that there is none.
        text => Some(ip("NextHop", text)?).filter(|hop| !hop.is_unspecified()),
    };
    if gateway.is_some_and(|gateway| gateway.is_ipv4() != destination.address().is_ipv4()) {
        return Err(AgentError::Invalid(format!(
            "route to {destination}: the next hop {} is of another family",
            route.next_hop
        )));
    }
    let metric = match route.metric {
        0 => low,
        metric => metric.into(),
    };
    Ok(Route {
        destination: destination.network(),
        gateway,
        metric,
        on_link: false,
    })
}

fn everything_like(address: IpAddr) -> Result<Prefix> {
    member("GatewayAddress", Prefix::new(address, 0)).map(Prefix::network)
}

fn member<T>(name: &str, value: Result<T, NetlinkError>) -> Result<T> {
    value.map_err(|error| AgentError::Invalid(format!("{name}: {error}")))
}

fn ip(name: &str, text: &str) -> Result<IpAddr> {
    text.parse()
        .map_err(|_| AgentError::Invalid(format!("{name}: {text:?} is no address")))
}

/// The members of a list with commas between; some hosts put spaces.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ']).filter(|part| !part.is_empty()).take(MOST)
}

/// It becomes part of a file of lines.
fn checked_domain(domain: &str) -> Result<&str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if domain.len() <= 253 && domain.bytes().all(allowed) {
        Ok(domain)
    } else {
        Err(AgentError::Invalid(format!("DNSSuffix: {domain:?} is no domain")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn adapter(members: Value) -> Result<Adapter> {
        let mut request = json!({"ID": "A", "MacAddress": "52-54-00-00-00-01"});
        for (name, value) in members.as_object().unwrap() {
            request[name] = value.clone();
        }
        Adapter::of(&serde_json::from_value(request).unwrap())
    }

    fn shown(adapter: &Adapter) -> Vec<String> {
        let routes = adapter.routes.iter();
        routes
            .map(|route| format!("{route} {} {}", route.metric, route.on_link))
            .collect()
    }

    #[test]
    fn the_older_form_is_an_address_and_the_way_over_its_gateway() {
        let adapter = adapter(json!({
            "IPAddress": "10.0.2.15", "PrefixLength": 24, "GatewayAddress": "10.0.2.2",
            "DNSServerList": "10.0.2.3,8.8.8.8", "DNSSuffix": "example.test, lan", "EncapOverhead": 50,
        }))
        .unwrap();
        assert_eq!(adapter.mac.to_string(), "52:54:00:00:00:01");
        assert_eq!(adapter.addresses, ["10.0.2.15/24".parse().unwrap()]);
        assert_eq!(shown(&adapter), ["0.0.0.0/0 over 10.0.2.2 0 false"]);
        assert_eq!(adapter.servers.len(), 2);
        assert_eq!(adapter.search, ["example.test", "lan"]);
        assert_eq!(adapter.encap_overhead, 50);
    }

    #[test]
    fn the_newer_form_has_lists_and_the_older_beside_it_adds_nothing() {
        let adapter = adapter(json!({
            "IPAddress": "10.1.0.5", "PrefixLength": 16, "GatewayAddress": "10.1.0.1",
            "IPConfigs": [{"IPAddress": "10.1.0.5", "PrefixLength": 16}, {"IPAddress": "fd00::5", "PrefixLength": 64}],
            "Routes": [
                {"NextHop": "10.1.0.1", "DestinationPrefix": "0.0.0.0/0"},
                {"NextHop": "fd00::1", "DestinationPrefix": "::/0", "Metric": 3},
                {"NextHop": "0.0.0.0", "DestinationPrefix": "10.9.1.1/8"},
            ],
        }))
        .unwrap();
        assert_eq!(adapter.addresses.len(), 2);
        assert_eq!(
            shown(&adapter),
            [
                "10.0.0.0/8 0 false",
                "0.0.0.0/0 over 10.1.0.1 0 false",
                "::/0 over fd00::1 3 false"
            ]
        );
    }

    #[test]
    fn a_gateway_outside_of_every_network_is_on_the_link() {
        let members = json!({"IPAddress": "10.1.0.5", "PrefixLength": 32, "GatewayAddress": "169.254.1.1"});
        assert_eq!(
            shown(&adapter(members.clone()).unwrap()),
            ["0.0.0.0/0 over 169.254.1.1 0 true"]
        );
        let mut reachable = members;
        reachable["Routes"] = json!([{"DestinationPrefix": "169.254.1.1/32"}]);
        reachable["EnableLowMetric"] = json!(true);
        assert_eq!(
            shown(&adapter(reachable).unwrap()),
            ["169.254.1.1/32 500 false", "0.0.0.0/0 over 169.254.1.1 500 false"]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_the_member_named() {
        for (members, name) in [
            (json!({"MacAddress": ""}), "MacAddress"),
            (json!({"IPAddress": "x"}), "IPAddress"),
            (json!({"IPAddress": "10.0.0.1", "PrefixLength": 33}), "IPAddress"),
            (json!({"GatewayAddress": "gw"}), "GatewayAddress"),
            (json!({"Routes": [{"NextHop": "10.0.0.1"}]}), "DestinationPrefix"),
            (
                json!({"Routes": [{"NextHop": "::1", "DestinationPrefix": "10.0.0.0/8"}]}),
                "another family",
            ),
            (json!({"DNSServerList": "one"}), "DNSServerList"),
            (json!({"DNSSuffix": "a\nnameserver"}), "DNSSuffix"),
            (
                json!({"CofferdamNeighbors": [{"IPAddress": "10.0.0.1"}]}),
                "CofferdamNeighbors",
            ),
            (json!({"PolicyBasedRouting": true}), "PolicyBasedRouting"),
        ] {
            let error = adapter(members).unwrap_err().to_string();
            assert!(error.contains(name), "{name}: {error}");
        }
        let many = vec![json!({"IPAddress": "10.0.0.1"}); MOST + 1];
        assert!(adapter(json!({"IPConfigs": many})).is_err());
    }
}
