//! A network namespace's loopback addresses, taken, against the kernel of this host.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod pod;

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::Path,
    thread,
    time::Duration,
};

use cofferdam_network::{Loopback, asked_for};
use pod::{POD, Pod};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Does something in the pod's network namespace, on a thread of its own.
fn in_pod<T: Send>(pod: &Pod, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(pod.path()).unwrap();
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        inside.join().unwrap()
    })
}

fn dialled(pod: &Pod, address: &str) -> std::io::Result<TcpStream> {
    let address: SocketAddr = address.parse().unwrap();
    in_pod(pod, || {
        TcpStream::connect_timeout(&address, Duration::from_secs(10))
    })
}

#[test]
fn every_port_of_the_loopback_addresses_leads_to_the_listener_which_learns_which_was_meant() {
    let pod = Pod::new();
    let (loopback, listener) = Loopback::take(&pod.path()).unwrap();
    for address in ["127.0.0.1:80", "127.8.9.10:65535", "[::1]:80", "[::1]:1"] {
        let mut client = dialled(&pod, address).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        let meant = asked_for(accepted.local_addr().unwrap());
        assert_eq!(meant, Some(address.parse().unwrap()));
        client.write_all(b"there").unwrap();
        accepted.write_all(b"back!").unwrap();
        let mut words = [0; 5];
        accepted.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"there");
        client.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"back!");
    }
    drop((loopback, listener));
}

#[test]
fn other_addresses_and_other_namespaces_are_left_alone() {
    let pod = Pod::new();
    let (loopback, listener) = Loopback::take(&pod.path()).unwrap();
    // The pod's own address is the VM's by other ways; here nobody listens.
    let refused = dialled(&pod, &format!("{POD}:80")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let another = Pod::new();
    let refused = dialled(&another, "127.0.0.1:80").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // The listener has a port of its own, at which nothing was asked for.
    let own = format!("{POD}:{}", listener.local_addr().unwrap().port());
    let _client = dialled(&pod, &own).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert_eq!(asked_for(accepted.local_addr().unwrap()), None);
    drop(loopback);
}

#[test]
fn they_are_given_back_and_a_listener_of_the_namespaces_own_is_found_again() {
    let pod = Pod::new();
    let own = in_pod(&pod, || TcpListener::bind("127.0.0.1:0").unwrap());
    let address = own.local_addr().unwrap().to_string();
    let (loopback, listener) = Loopback::take(&pod.path()).unwrap();
    let taken = dialled(&pod, &address).unwrap();
    assert_eq!(
        listener.accept().unwrap().1,
        taken.local_addr().unwrap().into_mapped()
    );
    // Without who listens, the program finds nobody.
    drop(listener);
    let kept = dialled(&pod, &address).unwrap();
    assert_eq!(own.accept().unwrap().1, kept.local_addr().unwrap());
    drop(loopback);
    let after = dialled(&pod, &address).unwrap();
    assert_eq!(own.accept().unwrap().1, after.local_addr().unwrap());
    let refused = dialled(&pod, "127.0.0.1:1").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

/// As a socket for both versions shows an address of version 4.
trait IntoMapped {
    fn into_mapped(self) -> SocketAddr;
}

impl IntoMapped for SocketAddr {
    fn into_mapped(self) -> SocketAddr {
        match self {
            SocketAddr::V4(address) => SocketAddr::new(address.ip().to_ipv6_mapped().into(), address.port()),
            other @ SocketAddr::V6(_) => other,
        }
    }
}

#[test]
fn the_hosts_own_loopback_is_never_taken() {
    let own = Loopback::take(Path::new("/proc/self/ns/net"))
        .unwrap_err()
        .to_string();
    assert!(own.contains("it is the host's"), "{own}");
    let nowhere = Loopback::take(Path::new("/run/netns/none-of-this-name")).unwrap_err();
    assert!(
        nowhere
            .to_string()
            .starts_with("opening the network namespace /run/netns/none-of-this-name")
    );
}
