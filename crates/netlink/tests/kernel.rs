//! Against the kernel of this host, in a network namespace of each test's own thread.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

use cofferdam_netlink::{Ingress, Neighbour, Netlink, Route};
use nix::sched::{CloneFlags, unshare};

/// A namespace with two interfaces that are each other's ends, `a` and `b`. Children of this thread are in it too.
fn pair() -> Netlink {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root: run the process ring as root");
    ip("link add name a type veth peer name b");
    Netlink::open().unwrap()
}

fn ip(words: &str) -> String {
    told("ip", words)
}

fn told(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn index(kernel: &mut Netlink, name: &str) -> i32 {
    let links = kernel.links().unwrap();
    links.iter().find(|link| link.name == name).unwrap().index
}

#[test]
fn links_are_listed_and_taken_up_with_another_mtu() {
    let mut kernel = pair();
    let a = index(&mut kernel, "a");
    kernel.set_link(a, true, Some(1400)).unwrap();
    let links = kernel.links().unwrap();
    let link = links.iter().find(|link| link.index == a).unwrap();
    assert!(link.up && !link.loopback);
    assert_eq!(link.mtu, 1400);
    assert!(ip("-o link show a").contains(&link.mac.unwrap().to_string()));
    assert!(links.iter().any(|link| link.name == "lo" && link.loopback));
    kernel.set_link(a, false, None).unwrap();
    assert!(!kernel.links().unwrap().iter().any(|link| link.up));
}

#[test]
fn addresses_and_routes_are_what_ip_shows_and_can_be_entered_again() {
    let mut kernel = pair();
    let a = index(&mut kernel, "a");
    let (v4, v6) = ("10.9.0.2/24".parse().unwrap(), "fd00:9::2/64".parse().unwrap());
    let route = |to: &str, over: Option<&str>, metric, on_link| Route {
        destination: to.parse().unwrap(),
        gateway: over.map(|over| over.parse().unwrap()),
        metric,
        on_link,
    };
    let routes = [
        route("0.0.0.0/0", Some("10.9.0.1"), 0, false),
        route("10.20.0.0/16", None, 7, false),
        route("10.30.0.0/16", Some("169.254.1.1"), 0, true),
        route("::/0", Some("fd00:9::1"), 1024, false),
    ];
    for _again in 0..2 {
        kernel.set_link(a, true, None).unwrap();
        kernel.add_address(a, v4).unwrap();
        kernel.add_address(a, v6).unwrap();
        for route in &routes {
            kernel.add_route(a, route).unwrap();
        }
    }
    assert_eq!(kernel.addresses(a).unwrap(), [v4, v6]);
    let mut listed = kernel.routes(a).unwrap();
    listed.sort_by_key(|route| route.destination);
    assert_eq!(listed, routes);
    let shown = ip("route show");
    assert!(shown.contains("default via 10.9.0.1 dev a"), "{shown}");
    assert!(
        shown.contains("10.30.0.0/16 via 169.254.1.1 dev a onlink") || shown.contains("169.254.1.1"),
        "{shown}"
    );
    kernel.remove_address(a, v4).unwrap();
    assert_eq!(kernel.addresses(a).unwrap(), [v6]);
}

#[test]
fn what_the_kernel_refuses_is_named() {
    let mut kernel = pair();
    let a = index(&mut kernel, "a");
    let route = Route {
        destination: "0.0.0.0/0".parse().unwrap(),
        gateway: Some("10.9.0.1".parse().unwrap()),
        metric: 0,
        on_link: false,
    };
    let error = kernel.add_route(a, &route).unwrap_err().to_string();
    assert!(
        error.starts_with("entering the route to 0.0.0.0/0 over 10.9.0.1 over interface"),
        "{error}"
    );
    assert!(error.contains("os error"), "{error}");
    let error = kernel.set_link(9999, true, None).unwrap_err().to_string();
    assert!(error.contains("No such device"), "{error}");
    // The socket is of use afterwards.
    assert_eq!(kernel.links().unwrap().len(), 3);
}

#[test]
fn neighbours_for_good_are_listed() {
    let mut kernel = pair();
    let a = index(&mut kernel, "a");
    kernel.set_link(a, true, None).unwrap();
    let neighbour = Neighbour {
        address: "169.254.1.1".parse().unwrap(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
    };
    kernel.add_neighbour(a, neighbour).unwrap();
    assert_eq!(kernel.neighbours(a).unwrap(), [neighbour]);
    assert!(ip("neigh show dev a").contains("PERMANENT"));
}

#[test]
fn everything_received_is_redirected_until_it_is_stopped() {
    let mut kernel = pair();
    ip("link add name c type veth peer name d");
    let (b, c) = (index(&mut kernel, "b"), index(&mut kernel, "c"));
    kernel.redirect(b, c).unwrap();
    let filters = told("tc", "filter show dev b ingress");
    assert!(
        filters.contains("mirred (Egress Redirect to device c)"),
        "{filters}"
    );
    assert!(kernel.redirect(b, c).is_err(), "there is one queue");
    assert_eq!(kernel.ingress(b).unwrap(), Ingress::Redirected(c));
    assert_eq!(kernel.ingress(c).unwrap(), Ingress::Absent);
    ip("link delete c");
    assert_eq!(kernel.ingress(b).unwrap(), Ingress::Redirected(0), "to nowhere");
    for _again in 0..2 {
        kernel.stop_redirecting(b).unwrap();
    }
    assert!(!told("tc", "qdisc show dev b").contains("ingress"));
    assert_eq!(kernel.ingress(b).unwrap(), Ingress::Absent);
    for (added, expected) in [
        ("qdisc add dev b clsact", Ingress::Absent),
        ("qdisc replace dev b ingress", Ingress::Empty),
        (
            "filter add dev b ingress u32 match u32 0 0 flowid 1:1",
            Ingress::Other,
        ),
    ] {
        if added.contains("replace") {
            told("tc", "qdisc delete dev b clsact");
        }
        told("tc", added);
        assert_eq!(kernel.ingress(b).unwrap(), expected, "{added}");
    }
    kernel.stop_redirecting(b).unwrap();
    assert!(kernel.redirect(b, 9999).is_err());
    assert!(
        !told("tc", "qdisc show dev b").contains("ingress"),
        "nothing is left of a failure"
    );
}
