//! Addresses of interfaces, and the neighbours that are known without asking.

use std::net::IpAddr;

use crate::{
    MacAddress, Netlink, Prefix,
    error::Result,
    message::{CREATE, REPLACE, attributes, i32_at, ip, u16_at},
};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
/// Bytes of `struct ifaddrmsg`.
const FIXED: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;
const SCOPE_LINK: u8 = 253;

const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
/// Bytes of `struct ndmsg`.
const NEIGHBOUR_FIXED: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;

/// Somebody whose hardware address is known for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The address.
    pub address: IpAddr,
    /// The hardware address.
    pub mac: MacAddress,
}

pub(crate) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

impl Netlink {
    /// The addresses of an interface, but for those an interface gives itself (link-local ones).
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&mut self, index: i32) -> Result<Vec<Prefix>> {
        let mut addresses = Vec::new();
        let action = format!("listing the addresses of interface {index}");
        self.dump(&action, RTM_GETADDR, &[0; FIXED], |kind, body| {
            let (length, scope) = (*body.get(1)?, *body.get(3)?);
            if kind == RTM_NEWADDR && i32_at(body, 4)? == index && scope != SCOPE_LINK {
                let (mut local, mut other) = (None, None);
                for (kind, value) in attributes(body.get(FIXED..)?) {
                    match kind {
                        IFA_LOCAL => local = ip(value),
                        IFA_ADDRESS => other = ip(value),
                        _ => {}
                    }
                }
                // On a link between two, IFA_ADDRESS is the other one's.
                addresses.push(Prefix::new(local.or(other)?, length).ok()?);
            }
            Some(())
        })?;
        Ok(addresses)
    }

    /// Gives an interface an address; one it has stays. An IPv6 address can be used at once: nobody is asked whether it
    /// has it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_address(&mut self, index: i32, prefix: Prefix) -> Result<()> {
        let action = format!("giving interface {index} the address {prefix}");
        self.change_address(&action, RTM_NEWADDR, CREATE | REPLACE, index, prefix)
    }

    /// Takes an address away.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_address(&mut self, index: i32, prefix: Prefix) -> Result<()> {
        let action = format!("taking the address {prefix} from interface {index}");
        self.change_address(&action, RTM_DELADDR, 0, index, prefix)
    }

    fn change_address(
        &mut self,
        action: &str,
        kind: u16,
        flags: u16,
        index: i32,
        prefix: Prefix,
    ) -> Result<()> {
        let address = prefix.address();
        let asked = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
        let mut fixed = [family(address), prefix.length(), asked, 0, 0, 0, 0, 0];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        self.perform(action, kind, flags, &fixed, |message| {
            message.address(IFA_LOCAL, address).address(IFA_ADDRESS, address)
        })
    }

    /// The neighbours of an interface that somebody has entered for good.
    ///
    /// # Errors
    /// The kernel's.
    pub fn neighbours(&mut self, index: i32) -> Result<Vec<Neighbour>> {
        let mut neighbours = Vec::new();
        let action = format!("listing the neighbours of interface {index}");
        self.dump(&action, RTM_GETNEIGH, &[0; NEIGHBOUR_FIXED], |kind, body| {
            let state = u16_at(body, 8)?;
            if kind == RTM_NEWNEIGH && i32_at(body, 4)? == index && state & NUD_PERMANENT != 0 {
                let (mut address, mut mac) = (None, None);
                for (kind, value) in attributes(body.get(NEIGHBOUR_FIXED..)?) {
                    match kind {
                        NDA_DST => address = ip(value),
                        NDA_LLADDR => mac = value.try_into().ok().map(MacAddress),
                        _ => {}
                    }
                }
                if let (Some(address), Some(mac)) = (address, mac) {
                    neighbours.push(Neighbour { address, mac });
                }
            }
            Some(())
        })?;
        Ok(neighbours)
    }

    /// Enters a neighbour for good.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_neighbour(&mut self, index: i32, neighbour: Neighbour) -> Result<()> {
        let Neighbour { address, mac } = neighbour;
        let action = format!("entering {address} as a neighbour of interface {index}");
        let mut fixed = [0; NEIGHBOUR_FIXED];
        fixed[0] = family(address);
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        fixed[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        self.perform(&action, RTM_NEWNEIGH, CREATE | REPLACE, &fixed, |message| {
            message.address(NDA_DST, address).attribute(NDA_LLADDR, &mac.0)
        })
    }
}
