//! Network adapters: what a VM is given of them, and how QEMU is told.
//!
//! Adapters are part of the machine from its start, as the root of q35's PCI takes none later
//! (docs/decisions/0112-network.md).

use std::{
    ffi::OsString,
    fmt, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use cofferdam_backend::BackendError;

use crate::tether::Surroundings;

/// What the guest is called on QEMU's own network, and what forwarded ports lead to.
pub const USER_GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The length of that network, in bits.
pub const USER_PREFIX_LENGTH: u8 = 24;
/// The gateway there: it also stands for the host's own loopback interface.
pub const USER_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server there: it passes on to the host's.
pub const USER_NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// Most adapters of a VM: as many PCI slots are kept for them.
pub const MAX_NICS: usize = 8;
/// PCI slot of the first adapter.
const FIRST_SLOT: usize = 0x14;

/// A network adapter.
#[derive(Debug, Clone)]
pub struct Nic {
    /// Its hardware address: what the guest finds it by. The first byte has bit 1 set and bit 0 clear, for an address
    /// that is nobody's.
    pub mac: [u8; 6],
    /// The largest packet, in bytes, as the guest is told; `None` leaves Ethernet's 1500.
    pub mtu: Option<u16>,
    /// What it is plugged into.
    pub link: NicLink,
}

impl Nic {
    /// An adapter on an open tap device. An MTU that QEMU cannot tell, of over 65,535 bytes, is left at Ethernet's.
    #[must_use]
    pub fn on_tap(mac: [u8; 6], mtu: u32, device: Arc<OwnedFd>) -> Self {
        Self {
            mac,
            mtu: u16::try_from(mtu).ok(),
            link: NicLink::Tap(device),
        }
    }
}

/// What an adapter is plugged into.
#[derive(Debug, Clone)]
pub enum NicLink {
    /// A network of QEMU's own that reaches what the QEMU process reaches (slirp), IPv4 only.
    User {
        /// Ports of the host that lead to ports of the guest.
        forwards: Vec<Forward>,
    },
    /// An open tap device (`/dev/net/tun` after `TUNSETIFF`), with `IFF_VNET_HDR` or without: QEMU asks the driver. The
    /// device is there as long as somebody has it open.
    Tap(Arc<OwnedFd>),
    /// A tap device by its name, in this process's network namespace. Somebody has made it, and keeps it.
    TapNamed(String),
}

/// A port of the host that leads to one of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Which kind of port.
    pub protocol: Protocol,
    /// Where the host listens. QEMU's own network has IPv4 only.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest_port: u16,
}

/// Kinds of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.protocol)
    }
}

/// Refuses what QEMU would refuse later, or in other words: too many adapters, addresses QEMU cannot listen at, and ports
/// that somebody has. A port can still be taken between this look and QEMU's start; then QEMU says so.
pub(crate) fn check(nics: &[Nic]) -> Result<(), BackendError> {
    if nics.len() > MAX_NICS {
        return Err(BackendError::Unsupported(format!(
            "a utility VM has at most {MAX_NICS} network adapters, not {}",
            nics.len()
        )));
    }
    for nic in nics {
        match &nic.link {
            NicLink::User { forwards } => {
                // Held together: one that is asked for twice is refused too.
                let _held: Vec<Held> = forwards.iter().map(hold).collect::<Result<_, _>>()?;
            }
            NicLink::TapNamed(name) if !is_interface_name(name) => {
                return Err(BackendError::Unsupported(format!(
                    "{name:?} cannot be the name of a network interface"
                )));
            }
            NicLink::Tap(_) | NicLink::TapNamed(_) => {}
        }
    }
    Ok(())
}

/// A port that is ours for a moment.
enum Held {
    Tcp { _listener: TcpListener },
    Udp { _socket: UdpSocket },
}

fn hold(forward: &Forward) -> Result<Held, BackendError> {
    if !forward.host.is_ipv4() {
        return Err(BackendError::Unsupported(format!(
            "publish {forward}: QEMU's own network has IPv4 only; name an IPv4 address of the host"
        )));
    }
    let held = match forward.protocol {
        Protocol::Tcp => TcpListener::bind(forward.host).map(|listener| Held::Tcp { _listener: listener }),
        Protocol::Udp => UdpSocket::bind(forward.host).map(|socket| Held::Udp { _socket: socket }),
    };
    held.map_err(|source| BackendError::Io {
        action: match source.kind() {
            io::ErrorKind::AddrInUse => format!("publish {forward}: the port is taken"),
            io::ErrorKind::AddrNotAvailable => {
                format!(
                    "publish {forward}: {} is no address of this host",
                    forward.host.ip()
                )
            }
            _ => format!("publish {forward}"),
        },
        source,
    })
}

/// As the kernel has it: up to 15 bytes, no `/`, no space; no comma, which QEMU would take for the end.
fn is_interface_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b',' | b':');
    (1..=15).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(allowed)
}

/// The options of adapter `index`.
pub(crate) fn options(index: usize, nic: &Nic) -> [(&'static str, OsString); 2] {
    let netdev = match &nic.link {
        NicLink::User { forwards } => {
            // Without IPv6 and its advertisements: addresses that lead nowhere are tried first by many programs.
            let mut text = format!("user,id=net{index},ipv6=off");
            for forward in forwards {
                let Forward {
                    protocol,
                    host,
                    guest_port,
                } = forward;
                text.push_str(&format!(",hostfwd={protocol}:{host}-:{guest_port}"));
            }
            text
        }
        NicLink::Tap(device) => format!("tap,id=net{index},fd={}", device.as_raw_fd()),
        NicLink::TapNamed(name) => {
            format!("tap,id=net{index},ifname={name},script=no,downscript=no")
        }
    };
    let [a, b, c, d, e, g] = nic.mac;
    let mtu = nic.mtu.map_or_else(String::new, |mtu| format!(",host_mtu={mtu}"));
    // Nobody boots from it: without the ROM, firmware does not look at it.
    let device = format!(
        "virtio-net-pci,id=nic{index},netdev=net{index},mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}{mtu},\
         bus=pcie.0,addr={:#04x},disable-legacy=on,romfile=",
        FIRST_SLOT + index
    );
    [("-netdev", netdev.into()), ("-device", device.into())]
}

/// What QEMU has to have for its adapters: open devices, and this host's network where it speaks in it itself. Where it does
/// not, it has none, so that whoever breaks out of the guest into QEMU reaches nobody.
pub(crate) fn surroundings(nics: &[Nic]) -> Surroundings {
    let devices = nics.iter().filter_map(|nic| match &nic.link {
        NicLink::Tap(device) => Some(device.as_raw_fd()),
        NicLink::User { .. } | NicLink::TapNamed(_) => None,
    });
    let files: Vec<RawFd> = devices.collect();
    Surroundings {
        apart: files.len() == nics.len(),
        files,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(forwards: Vec<Forward>) -> Nic {
        Nic {
            mac: [0x52, 0x54, 0, 0, 0, 0xab],
            mtu: None,
            link: NicLink::User { forwards },
        }
    }

    fn forward(protocol: Protocol, host: &str) -> Forward {
        Forward {
            protocol,
            host: host.parse().unwrap(),
            guest_port: 80,
        }
    }

    fn text(index: usize, nic: &Nic) -> String {
        options(index, nic)
            .map(|(name, value)| format!("{name} {}", value.to_string_lossy()))
            .join("\n")
    }

    #[test]
    fn an_adapter_of_qemus_own_network_has_its_forwards() {
        let nic = user(vec![
            forward(Protocol::Tcp, "127.0.0.1:8080"),
            forward(Protocol::Udp, "0.0.0.0:53"),
        ]);
        assert_eq!(
            text(0, &nic),
            "-netdev user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:0.0.0.0:53-:80\n\
             -device virtio-net-pci,id=nic0,netdev=net0,mac=52:54:00:00:00:ab,bus=pcie.0,addr=0x14,disable-legacy=on,romfile="
        );
    }

    #[test]
    fn a_tap_is_named_or_inherited_and_has_its_mtu() {
        let named = Nic {
            mtu: Some(1450),
            link: NicLink::TapNamed("tap0".into()),
            ..user(Vec::new())
        };
        let told = text(1, &named);
        assert!(
            told.contains("tap,id=net1,ifname=tap0,script=no,downscript=no"),
            "{told}"
        );
        assert!(
            told.contains(",host_mtu=1450,") && told.contains("addr=0x15"),
            "{told}"
        );
        let file: Arc<OwnedFd> = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
        let open = Nic {
            link: NicLink::Tap(file.clone()),
            ..user(Vec::new())
        };
        assert!(text(0, &open).contains(&format!("tap,id=net0,fd={}\n", file.as_raw_fd())));
        let both = surroundings(&[named, open.clone()]);
        assert_eq!((both.files, both.apart), (vec![file.as_raw_fd()], false));
        assert!(surroundings(&[open]).apart && surroundings(&[]).apart);
        assert!(!surroundings(&[user(Vec::new())]).apart);
    }

    #[test]
    fn a_port_that_is_taken_is_named_before_anything_starts() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = taken.local_addr().unwrap().to_string();
        let error = check(&[user(vec![forward(Protocol::Tcp, &host)])])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!(
                "publish {host}/tcp: the port is taken: Address already in use"
            )),
            "{error}"
        );
        // The same number of the other kind is free, and so is this one afterwards.
        check(&[user(vec![forward(Protocol::Udp, &host)])]).unwrap();
        drop(taken);
        check(&[user(vec![forward(Protocol::Tcp, &host)])]).unwrap();
        let twice = forward(Protocol::Tcp, &host);
        assert!(check(&[user(vec![twice, twice])]).is_err());
    }

    #[test]
    fn addresses_names_and_numbers_that_cannot_be_are_refused() {
        let refused = |nics: &[Nic]| check(nics).unwrap_err().to_string();
        assert!(refused(&[user(vec![forward(Protocol::Tcp, "[::1]:8080")])]).contains("IPv4 only"));
        let nowhere = refused(&[user(vec![forward(Protocol::Tcp, "192.0.2.7:8080")])]);
        assert!(
            nowhere.contains("192.0.2.7 is no address of this host"),
            "{nowhere}"
        );
        assert!(refused(&vec![user(Vec::new()); MAX_NICS + 1]).contains("at most 8"));
        for name in ["", "a,script=/bin/sh", "a b", "a/b", "sixteen-bytes-xx"] {
            let nic = Nic {
                link: NicLink::TapNamed(name.into()),
                ..user(Vec::new())
            };
            assert!(check(&[nic]).is_err(), "{name}");
        }
    }
}
