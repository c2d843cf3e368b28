//! Connections to a network namespace's own addresses (127.0.0.0/8 and ::1), handed to one listener.
//!
//! Whatever connects to `localhost` of a pod from inside of its network namespace (the CRI plugin's port-forward does)
//! means a service of the pod, and that is in the VM. Here the listener gets all of them, whichever port is meant: the
//! kernel asks a program of ours before it looks for a listener (`BPF_PROG_TYPE_SK_LOOKUP`, Linux 5.9).

mod kernel;
mod program;

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt},
};

use crate::{error::NetworkError, namespace::inside_of};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A network namespace's loopback addresses, taken. They are given back when it is dropped, or the process ends in
/// whatever way.
#[derive(Debug)]
#[must_use = "dropping it gives the loopback addresses back"]
pub struct Loopback {
    _link: OwnedFd,
}

impl Loopback {
    /// Takes every TCP port of 127.0.0.0/8 and ::1 in the network namespace at `namespace`, and gives who listens there. A
    /// connection's own address ([`asked_for`]) says which port was meant. Listeners that others have on these addresses get
    /// no connections meanwhile.
    ///
    /// # Errors
    /// The namespace cannot be entered or is this process's own, or the first process's; the kernel has no such programs, or
    /// this process may not load them.
    pub fn take(namespace: &Path) -> Result<(Self, TcpListener), NetworkError> {
        let failed = |action: &str| {
            let action = format!("{action} the network namespace {}", namespace.display());
            move |source: io::Error| NetworkError::Io { action, source }
        };
        let file = File::open(namespace).map_err(failed("opening"))?;
        if is_of_the_host(&file).map_err(failed("looking at"))? {
            return Err(NetworkError::OwnNamespace {
                namespace: namespace.to_owned(),
            });
        }
        let listener = inside_of(&file, namespace, || {
            listener().map_err(failed("listening on every address of"))
        })?;
        let linked = || {
            let map = kernel::map_of(listener.as_fd())?;
            let program = kernel::load(&program::loopback_to(map.as_raw_fd()))?;
            kernel::attach(program.as_fd(), file.as_fd())
        };
        // The link holds the program, and that the map.
        let link = linked().map_err(failed("taking (bpf) the loopback addresses of"))?;
        Ok((Self { _link: link }, listener))
    }
}

/// Which address and port a connection meant, by its own address on this side: `None` where that is no loopback address, so
/// that it came to the listener by the listener's own port.
#[must_use]
pub fn asked_for(local: SocketAddr) -> Option<SocketAddr> {
    let address = local.ip().to_canonical();
    address
        .is_loopback()
        .then(|| SocketAddr::new(address, local.port()))
}

fn is_of_the_host(namespace: &File) -> io::Result<bool> {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    let theirs = identity(namespace.metadata()?);
    let hosts = ["/proc/thread-self/ns/net", "/proc/1/ns/net"];
    // That of the first process cannot always be read, and then is another user's.
    Ok(hosts
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .any(|found| identity(found) == theirs))
}

/// Who listens on a port of the kernel's choice, for both versions of IP where there are both. The address does not matter to
/// the program; the kernel has the listener take what is of its families.
fn listener() -> io::Result<TcpListener> {
    let both = socket_with(
        AddressFamily::INET6,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let socket = match both {
        Ok(socket) => {
            sockopt::set_ipv6_v6only(&socket, false)?;
            bind(&socket, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0))?;
            socket
        }
        Err(Errno::AFNOSUPPORT) => {
            let socket = socket_with(
                AddressFamily::INET,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
            socket
        }
        Err(error) => return Err(error.into()),
    };
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}
