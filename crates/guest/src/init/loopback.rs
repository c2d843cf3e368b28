//! Bringing the loopback interface up, over rtnetlink (`rtnetlink(7)`): one message, no answer needed.

use std::io;

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, sendto, socket_with,
};

/// Index of `lo` in every network namespace.
const LOOPBACK_INDEX: i32 = 1;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const IFF_UP: u32 = 1;

/// Brings `lo` up. Protocol 0 of netlink is routing.
pub(crate) fn bring_up() -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sendto(
        &socket,
        &message(),
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    Ok(())
}

/// `struct nlmsghdr` and `struct ifinfomsg`.
fn message() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0..4].copy_from_slice(&32_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    bytes[20..24].copy_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    // Flags, and which of them to change.
    bytes[24..28].copy_from_slice(&IFF_UP.to_ne_bytes());
    bytes[28..32].copy_from_slice(&IFF_UP.to_ne_bytes());
    bytes
}
