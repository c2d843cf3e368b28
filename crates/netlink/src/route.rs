//! Routes of the main table.

use std::{fmt, net::IpAddr};

use crate::{
    Netlink, Prefix,
    address::{AF_INET, AF_INET6, family},
    error::Result,
    message::{CREATE, REPLACE, attributes, ip, u32_at},
};

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// Bytes of `struct rtmsg`.
const FIXED: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const TABLE_MAIN: u8 = 254;
/// By whom a route was made: the kernel itself, for an address; at boot.
const PROTOCOL_KERNEL: u8 = 2;
const PROTOCOL_BOOT: u8 = 3;
/// From a router's advertisement.
const PROTOCOL_RA: u8 = 9;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const UNICAST: u8 = 1;
/// The gateway is on the link, whatever its address says.
const ONLINK: u32 = 4;

/// A way to a network over one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where to; every address of its family with length 0.
    pub destination: Prefix,
    /// Over whom; `None` where the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// Of two to the same destination, the one with the lower metric is taken. 0 is the kernel's default.
    pub metric: u32,
    /// The gateway is on the link, though in no network of the interface's addresses.
    pub on_link: bool,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        match self.gateway {
            Some(gateway) => write!(f, " over {gateway}"),
            None => Ok(()),
        }
    }
}

impl Netlink {
    /// The routes over an interface that somebody has entered: none that the kernel made for an address, or that a
    /// router advertised.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes(&mut self, index: i32) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        let action = format!("listing the routes over interface {index}");
        for family in [AF_INET, AF_INET6] {
            let mut fixed = [0; FIXED];
            fixed[0] = family;
            self.dump(&action, RTM_GETROUTE, &fixed, |kind, body| {
                if kind == RTM_NEWROUTE
                    && let Some((over, route)) = route(body)?
                    && over == index
                {
                    routes.push(route);
                }
                Some(())
            })?;
        }
        Ok(routes)
    }

    /// Enters a route over an interface, or replaces the one there is.
    ///
    /// # Errors
    /// The kernel's: the gateway cannot be reached, for one.
    pub fn add_route(&mut self, index: i32, route: &Route) -> Result<()> {
        let action = format!("entering the route to {route} over interface {index}");
        let destination = route.destination.network();
        let scope = match route.gateway {
            None if destination.address().is_ipv4() => SCOPE_LINK,
            _ => SCOPE_UNIVERSE,
        };
        let mut fixed = [0; FIXED];
        fixed[0] = family(destination.address());
        fixed[1] = destination.length();
        fixed[4..8].copy_from_slice(&[TABLE_MAIN, PROTOCOL_BOOT, scope, UNICAST]);
        if route.on_link {
            fixed[8..12].copy_from_slice(&ONLINK.to_ne_bytes());
        }
        self.perform(&action, RTM_NEWROUTE, CREATE | REPLACE, &fixed, |mut message| {
            if destination.length() > 0 {
                message = message.address(RTA_DST, destination.address());
            }
            if let Some(gateway) = route.gateway {
                message = message.address(RTA_GATEWAY, gateway);
            }
            if route.metric > 0 {
                message = message.number(RTA_PRIORITY, route.metric);
            }
            message.number(RTA_OIF, index.unsigned_abs())
        })
    }
}

/// The interface and the route; nothing for one that is not of ours to know. `None` if it cannot be read.
#[expect(
    clippy::option_option,
    reason = "malformed and uninteresting are different answers"
)]
fn route(body: &[u8]) -> Option<Option<(i32, Route)>> {
    let &[family, length, _, _, table, protocol, _, kind, ..] = body else {
        return None;
    };
    let flags = u32_at(body, 8)?;
    let ours = table == TABLE_MAIN
        && kind == UNICAST
        && protocol != PROTOCOL_KERNEL
        && protocol != PROTOCOL_RA
        && matches!(family, AF_INET | AF_INET6);
    if !ours {
        return Some(None);
    }
    let everywhere = if family == AF_INET {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    };
    let (mut destination, mut gateway, mut metric, mut over) = (everywhere, None, 0, None);
    for (kind, value) in attributes(body.get(FIXED..)?) {
        match kind {
            RTA_DST => destination = ip(value)?,
            RTA_GATEWAY => gateway = Some(ip(value)?),
            RTA_PRIORITY => metric = u32_at(value, 0)?,
            RTA_OIF => over = i32::try_from(u32_at(value, 0)?).ok(),
            _ => {}
        }
    }
    let route = Route {
        destination: Prefix::new(destination, length).ok()?,
        gateway,
        metric,
        on_link: flags & ONLINK != 0,
    };
    // Without one interface of its own it has several ways.
    Some(over.map(|over| (over, route)))
}
