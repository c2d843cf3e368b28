//! An interface and a tap device joined, against the kernel of this host.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod pod;

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use cofferdam_network::{Tap, interfaces, restore};
use pod::Pod;
use rustix::fs::{OFlags, fcntl_setfl};

/// Bytes of the header before each frame.
const HEADER: usize = 10;
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn the_description_is_what_the_interface_was_given() {
    let pod = Pod::new();
    assert_eq!(interfaces(&pod.path()).unwrap(), ["eth0"]);
    pod.inside("ip neigh add 10.99.0.9 lladdr 02:00:00:00:00:09 dev eth0");
    let tap = Tap::join(&pod.path(), "eth0").unwrap();
    let told = tap.description();
    let shown: Vec<_> = told.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.99.0.2/24", "fd00:99::2/64"]);
    let routes: Vec<_> = told.routes.iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["0.0.0.0/0 over 10.99.0.1"]);
    assert_eq!(told.mtu, 1450);
    assert_eq!(told.neighbours[0].address.to_string(), "10.99.0.9");
    assert!(pod.inside("ip link show eth0").contains(&told.mac.to_string()));
    tap.remove().unwrap();
}

#[test]
fn frames_go_both_ways_and_afterwards_the_interface_is_as_it_was() {
    let pod = Pod::new();
    let before = (pod.inside("ip link show"), pod.inside("tc qdisc show"));
    assert!(pod.answers_soon(), "the pod's own kernel");
    let tap = Tap::join(&pod.path(), "eth0").unwrap();
    let mut device = File::from(tap.device().try_clone().unwrap());
    fcntl_setfl(&device, OFlags::NONBLOCK).unwrap();
    let mac = tap.description().mac.0;
    pod.node("ip neigh flush dev veth0");
    let echo = thread::scope(|scope| {
        let guest = scope.spawn(|| guest(&mut device, mac));
        assert!(!pod.answers(), "the pod's own kernel no longer hears it");
        guest.join().unwrap()
    });
    // To the address that the guest said is its own: the node has heard it.
    assert_eq!(echo[..6], mac);
    let neighbours = pod.node("ip neigh show dev veth0").stdout;
    let neighbours = String::from_utf8(neighbours).unwrap();
    assert!(
        neighbours.contains(&tap.description().mac.to_string()),
        "{neighbours}"
    );
    drop(device);
    tap.remove().unwrap();
    assert_eq!((pod.inside("ip link show"), pod.inside("tc qdisc show")), before);
    assert!(pod.answers_soon(), "the pod's own kernel again");
}

/// A guest that answers who has its address, until it gets an echo request. Gives that frame.
fn guest(device: &mut File, mac: [u8; 6]) -> Vec<u8> {
    let start = Instant::now();
    let mut buffer = [0; 2048];
    while start.elapsed() < LIMIT {
        let length = match device.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(2));
                continue;
            }
            length => length.unwrap(),
        };
        let frame = &buffer[HEADER..length];
        match frame[12..14] {
            // An address resolution packet (RFC 826): a request for the pod's address.
            [8, 6] if frame[20..22] == [0, 1] && frame[38..42] == [10, 99, 0, 2] => {
                let mut answer = vec![0; HEADER];
                answer.extend_from_slice(&frame[6..12]);
                answer.extend_from_slice(&mac);
                answer.extend_from_slice(&frame[12..20]);
                answer.extend_from_slice(&[0, 2]);
                answer.extend_from_slice(&mac);
                answer.extend_from_slice(&frame[38..42]);
                answer.extend_from_slice(&frame[22..32]);
                device.write_all(&answer).unwrap();
            }
            [8, 0] if frame[23] == 1 => return frame.to_vec(),
            _ => {}
        }
    }
    panic!("no echo request came");
}

#[test]
fn what_a_killed_owner_left_is_restored_and_twice_is_refused() {
    let pod = Pod::new();
    let tap = Tap::join(&pod.path(), "eth0").unwrap();
    let twice = Tap::join(&pod.path(), "eth0").unwrap_err().to_string();
    assert!(
        twice.contains("ingress queue") && twice.contains("File exists"),
        "{twice}"
    );
    // As a kill does it: the device is closed, and nothing else is done.
    let device = tap.device();
    std::mem::forget(tap);
    // The forgotten value still holds it; its number is what a killed process would have given back.
    drop(device);
    for _again in 0..2 {
        restore(&pod.path(), "eth0").unwrap();
    }
    assert!(pod.answers_soon());
    Tap::join(&pod.path(), "eth0").unwrap().remove().unwrap();
}

#[test]
fn a_namespace_that_is_gone_took_everything_along() {
    let pod = Pod::new();
    let tap = Tap::join(&pod.path(), "eth0").unwrap();
    let path = pod.path();
    drop(pod);
    tap.remove().unwrap();
    restore(&path, "eth0").unwrap();
}

#[test]
fn what_cannot_be_joined_is_named() {
    let pod = Pod::new();
    let refused = |interface: &str| Tap::join(&pod.path(), interface).unwrap_err().to_string();
    assert!(refused("eth7").ends_with("interface \"eth7\": there is none of this name"));
    assert!(refused("lo").ends_with("interface \"lo\": it is no Ethernet interface"));
    let nowhere = Tap::join(Path::new("/run/netns/none-of-this-name"), "eth0")
        .unwrap_err()
        .to_string();
    assert!(
        nowhere.starts_with("entering the network namespace /run/netns/none-of-this-name: No such file"),
        "{nowhere}"
    );
    let no_namespace = Tap::join(Path::new("/dev/null"), "eth0").unwrap_err().to_string();
    assert!(
        no_namespace.contains("/dev/null: Invalid argument"),
        "{no_namespace}"
    );
}
