//! Interfaces.

use crate::{
    MacAddress, Netlink,
    error::Result,
    message::{attributes, i32_at, u32_at},
};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// Bytes of `struct ifinfomsg`.
const FIXED: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;

/// An interface of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number, by which it is meant in every request.
    pub index: i32,
    /// Its name.
    pub name: String,
    /// Its hardware address, where it has one of Ethernet's length.
    pub mac: Option<MacAddress>,
    /// The largest packet it carries, in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
}

impl Netlink {
    /// All interfaces.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        self.dump(
            "listing the interfaces",
            RTM_GETLINK,
            &[0; FIXED],
            |kind, body| {
                if kind == RTM_NEWLINK {
                    links.push(link(body)?);
                }
                Some(())
            },
        )?;
        Ok(links)
    }

    /// Takes an interface up or down, with another MTU if one is given (in bytes).
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_link(&mut self, index: i32, up: bool, mtu: Option<u32>) -> Result<()> {
        let action = format!("taking interface {index} {}", if up { "up" } else { "down" });
        let mut fixed = [0; FIXED];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        // Flags, and which of them to change.
        fixed[8..12].copy_from_slice(&u32::from(up).to_ne_bytes());
        fixed[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
        self.perform(&action, RTM_NEWLINK, 0, &fixed, |message| match mtu {
            Some(mtu) => message.number(IFLA_MTU, mtu),
            None => message,
        })
    }
}

fn link(body: &[u8]) -> Option<Link> {
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        index: i32_at(body, 4)?,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags & IFF_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
    };
    for (kind, value) in attributes(body.get(FIXED..)?) {
        match kind {
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(MacAddress),
            IFLA_IFNAME => {
                let name = value.strip_suffix(b"\0").unwrap_or(value);
                link.name = String::from_utf8_lossy(name).into_owned();
            }
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(link)
}
