//! Opening a tap device.
#![allow(
    unsafe_code,
    reason = "TUNSETIFF is a call of the tun driver's own; the crates that wrap it bring a whole tunnel with them"
)]

use std::{fs::OpenOptions, io, os::fd::OwnedFd};

use rustix::ioctl::{Opcode, Updater, ioctl};

/// The driver's device node.
const NODE: &str = "/dev/net/tun";
/// `_IOW('T', 202, int)`, though it takes a `struct ifreq` and writes the name into it.
const TUNSETIFF: Opcode = 0x4004_54ca;
/// Bytes of `struct ifreq`, and of the name at its start.
const REQUEST: usize = 40;
const NAME: usize = 16;
/// Frames of Ethernet, without four bytes of the driver's own before them, but with the header by which a hypervisor passes
/// checksums and segmentation on.
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
/// The kernel puts a number in.
const PATTERN: &[u8] = b"tapcoff%d";

/// A new tap device in the calling thread's network namespace, and its name. It is gone when nobody has it open.
pub(crate) fn open() -> io::Result<(OwnedFd, String)> {
    let file = OpenOptions::new().read(true).write(true).open(NODE)?;
    let mut request = [0_u8; REQUEST];
    request[..PATTERN.len()].copy_from_slice(PATTERN);
    let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    request[NAME..NAME + 2].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which is 40 bytes long on every 64-bit Linux; the array is as
    // long, and lives until the call is over. Bytes have no invalid values.
    unsafe { ioctl(&file, Updater::<TUNSETIFF, [u8; REQUEST]>::new(&mut request)) }?;
    let name = request[..NAME]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    Ok((file.into(), String::from_utf8_lossy(name).into_owned()))
}
