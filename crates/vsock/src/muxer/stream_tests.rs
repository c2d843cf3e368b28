//! One stream: its bytes in both directions, slow and vanishing ends, and half-closes in every order.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::peer::{PORT, Peer, Updates, pattern, read_some, write_some};
use crate::packet::{Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

const G: u32 = 40;
const BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// Repeats until it says it is done; a stream that stands still fails the test.
fn within(limit: Duration, what: &str, mut step: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !step() {
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::yield_now();
    }
}

/// Lets the guest send all of it while the host reads.
fn guest_sends(peer: &mut Peer, host: &mut UnixStream, bytes: &[u8]) {
    let (mut sent, mut received) = (0, Vec::new());
    within(Duration::from_secs(10), "guest to host", || {
        sent += peer.send(G, &bytes[sent..]);
        peer.pump();
        received.extend(read_some(host, 100_000).0);
        received.len() == bytes.len()
    });
    assert!(received == bytes);
}

/// Lets the host send all of it while the guest reads.
fn host_sends(peer: &mut Peer, host: &mut UnixStream, bytes: &[u8]) {
    let (mut sent, mut received) = (0, Vec::new());
    within(Duration::from_secs(10), "host to guest", || {
        sent += write_some(host, &bytes[sent..]);
        peer.pump();
        received.extend(peer.read(G, usize::MAX));
        received.len() == bytes.len()
    });
    assert!(received == bytes);
}

/// Reads what is left on the host's end, up to its end.
fn rest_of(peer: &mut Peer, host: &mut UnixStream) -> Vec<u8> {
    let mut received = Vec::new();
    within(Duration::from_secs(10), "the end on the host", || {
        peer.pump();
        let (bytes, ended) = read_some(host, 1 << 20);
        received.extend(bytes);
        ended
    });
    received
}

#[derive(Debug, Clone)]
enum Step {
    GuestSends(usize),
    HostSends(usize),
    GuestReads(usize),
    HostReads(usize),
    Room(usize),
    Pump,
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => 1_usize..8,
        3 => 1_usize..5000,
        2 => 60_000_usize..70_000,
        1 => 1_usize..1_000_000,
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => sizes().prop_map(Step::GuestSends),
        3 => sizes().prop_map(Step::HostSends),
        3 => sizes().prop_map(Step::GuestReads),
        3 => sizes().prop_map(Step::HostReads),
        1 => (1_usize..70_000).prop_map(Step::Room),
        3 => Just(Step::Pump),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_byte_arrives_once_and_in_order_however_it_is_cut(
        steps in proptest::collection::vec(steps(), 1..60),
        guest_buffer in prop_oneof![Just(1_u32), Just(4096), Just(256 << 10), 1_u32..1_000_000],
        scarce in any::<bool>(),
    ) {
        let mut peer = Peer::new();
        peer.updates = if scarce { Updates::Scarce } else { Updates::Prompt };
        peer.dial_with(G, guest_buffer);
        peer.pump();
        let mut host = peer.listener.try_accept().unwrap();
        // Asked for, sent, received; guest to host and host to guest.
        let (mut up, mut down) = ([0_usize; 2], [0_usize; 2]);
        for step in steps {
            match step {
                Step::GuestSends(size) => up[0] += peer.send(G, &pattern(1, up[0], size)),
                Step::HostSends(size) => down[0] += write_some(&mut host, &pattern(2, down[0], size)),
                Step::GuestReads(size) => {
                    let bytes = peer.read(G, size);
                    prop_assert!(bytes == pattern(2, down[1], bytes.len()));
                    down[1] += bytes.len();
                }
                Step::HostReads(size) => {
                    let (bytes, _) = read_some(&mut host, size);
                    prop_assert!(bytes == pattern(1, up[1], bytes.len()));
                    up[1] += bytes.len();
                }
                Step::Room(room) => peer.room = room,
                Step::Pump => {
                    peer.pump();
                }
            }
        }
        // A buffer of a byte or so carries a byte or so at a time, and may have to be asked about each.
        if guest_buffer < 64 {
            return Ok(());
        }
        peer.say(G, Op::Shutdown, SHUTDOWN_SEND);
        host.shutdown(Shutdown::Write).unwrap();
        let rest = rest_of(&mut peer, &mut host);
        prop_assert!(rest == pattern(1, up[1], up[0] - up[1]));
        within(Duration::from_secs(20), "host to guest", || {
            peer.pump();
            let bytes = peer.read(G, 100_000);
            assert!(bytes == pattern(2, down[1], bytes.len()));
            down[1] += bytes.len();
            down[1] == down[0]
        });
        peer.pump();
        prop_assert!(peer.socket(G).reset, "both have ended and the guest is not told");
        prop_assert!(peer.muxer.streams.is_empty());
        prop_assert_eq!(peer.muxer.lingering(), 0);
    }
}

#[test]
fn a_port_nobody_listens_on_refuses() {
    let mut peer = Peer::new();
    drop(std::mem::replace(
        &mut peer.listener,
        peer.ports.listen(PORT + 1).unwrap(),
    ));
    peer.dial(G);
    peer.pump();
    assert!(peer.socket(G).reset && !peer.socket(G).connected);
}

#[test]
fn a_slow_reader_on_the_host_holds_the_guest_up_and_loses_nothing() {
    let mut peer = Peer::new();
    let mut host = peer.connect(G);
    let bytes = pattern(1, 0, 3 << 20);
    let mut sent = 0;
    loop {
        let now = peer.send(G, &bytes[sent..]);
        peer.pump();
        sent += now;
        if now == 0 {
            break;
        }
    }
    assert!(sent < bytes.len(), "held up after {sent} bytes");
    let mut received = Vec::new();
    within(Duration::from_secs(20), "guest to host", || {
        received.extend(read_some(&mut host, 777).0);
        peer.pump();
        sent += peer.send(G, &bytes[sent..]);
        received.len() == bytes.len()
    });
    assert!(received == bytes);
}

#[test]
fn a_slow_reader_in_the_guest_holds_the_host_up_and_loses_nothing() {
    let mut peer = Peer::new();
    let mut host = peer.connect(G);
    let bytes = pattern(2, 0, 3 << 20);
    let mut sent = 0;
    loop {
        let now = write_some(&mut host, &bytes[sent..]);
        sent += now;
        if peer.pump() + now == 0 {
            break;
        }
    }
    assert!(sent < bytes.len(), "held up after {sent} bytes");
    let mut received = Vec::new();
    within(Duration::from_secs(20), "host to guest", || {
        received.extend(peer.read(G, 777));
        peer.pump();
        sent += write_some(&mut host, &bytes[sent..]);
        received.len() == bytes.len()
    });
    assert!(received == bytes);
}

#[test]
fn many_small_writes_reach_a_guest_that_only_says_what_it_read_when_asked() {
    let mut peer = Peer::new();
    peer.updates = Updates::Scarce;
    let mut host = peer.connect(G);
    let bytes = pattern(2, 0, 400);
    for byte in &bytes {
        host.write_all(&[*byte]).unwrap();
        peer.pump();
    }
    let asked = peer.socket(G).count(Op::CreditRequest);
    assert_eq!(asked, 1, "held up by packets, it asks at once, and once");
    let mut received = Vec::new();
    within(Duration::from_secs(10), "host to guest", || {
        received.extend(peer.read(G, usize::MAX));
        peer.pump();
        received.len() == bytes.len()
    });
    assert!(received == bytes);
}

#[test]
fn a_guest_without_room_is_asked_now_and_then_and_not_more() {
    let mut peer = Peer::new();
    let mut host = peer.connect(G);
    while write_some(&mut host, &[7; 65536]) > 0 {
        peer.pump();
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(550) {
        peer.pump();
        std::thread::sleep(Duration::from_millis(5));
    }
    let asked = peer.socket(G).count(Op::CreditRequest);
    assert!((1..=6).contains(&asked), "{asked} times in half a second");
}

#[test]
fn a_reader_that_vanishes_breaks_the_guests_pipe_and_not_the_other_way() {
    let mut peer = Peer::new();
    let mut host = peer.connect(G);
    let bytes = pattern(2, 0, 100_000);
    assert_eq!(write_some(&mut host, &bytes), bytes.len());
    drop(host);
    peer.muxer.poll();
    // Sent before the guest can know.
    peer.send(G, b"nobody reads this");
    peer.pump();
    assert_eq!(peer.socket(G).peer_shutdown & SHUTDOWN_RECEIVE, SHUTDOWN_RECEIVE);
    let mut received = Vec::new();
    within(Duration::from_secs(5), "host to guest", || {
        received.extend(peer.read(G, usize::MAX));
        peer.pump();
        peer.socket(G).reset
    });
    assert!(received == bytes);
    assert!(peer.muxer.streams.is_empty());
}

#[test]
fn an_end_dropped_over_unread_bytes_is_known_to_the_guest_at_once() {
    let mut peer = Peer::new();
    let host = peer.connect(G);
    peer.send(G, &pattern(1, 0, 60_000));
    peer.pump();
    drop(host);
    peer.pump();
    let socket = peer.socket(G);
    assert_eq!(socket.peer_shutdown, BOTH);
    assert!(socket.reset);
}

#[test]
fn an_end_dropped_while_the_device_holds_bytes_for_it_is_known_to_the_guest_at_once() {
    let mut peer = Peer::new();
    let host = peer.connect(G);
    let bytes = vec![1; 1 << 20];
    while peer.send(G, &bytes) > 0 {
        peer.pump();
    }
    drop(host);
    peer.pump();
    assert_eq!(peer.socket(G).peer_shutdown, BOTH);
    assert!(peer.socket(G).reset);
    assert_eq!(peer.muxer.lingering(), 0);
}

#[test]
fn a_host_that_only_stops_reading_goes_on_sending() {
    let mut peer = Peer::new();
    let mut host = peer.connect(G);
    host.shutdown(Shutdown::Read).unwrap();
    peer.send(G, b"x");
    peer.pump();
    assert_eq!(peer.socket(G).peer_shutdown, SHUTDOWN_RECEIVE);
    host_sends(&mut peer, &mut host, &pattern(2, 0, 500_000));
    assert!(!peer.socket(G).reset);
}

#[test]
fn the_guest_ends_its_sending_first() {
    let mut peer = Peer::new();
    let mut host = peer.connect(G);
    let question = pattern(1, 0, 150_000);
    let mut sent = 0;
    while sent < question.len() {
        sent += peer.send(G, &question[sent..]);
        peer.pump();
    }
    peer.say(G, Op::Shutdown, SHUTDOWN_SEND);
    assert!(rest_of(&mut peer, &mut host) == question);
    host_sends(&mut peer, &mut host, &pattern(2, 0, 700_000));
    assert!(!peer.socket(G).reset);
    host.shutdown(Shutdown::Write).unwrap();
    peer.pump();
    assert_eq!(peer.socket(G).peer_shutdown & SHUTDOWN_SEND, SHUTDOWN_SEND);
    assert!(peer.socket(G).reset);
}

#[test]
fn the_host_ends_its_sending_first() {
    let mut peer = Peer::new();
    let mut host = peer.connect(G);
    host.write_all(b"question").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    peer.pump();
    assert_eq!(peer.socket(G).peer_shutdown, SHUTDOWN_SEND);
    assert_eq!(peer.read(G, 100), b"question");
    guest_sends(&mut peer, &mut host, &pattern(1, 0, 700_000));
    assert!(!peer.socket(G).reset);
    peer.say(G, Op::Shutdown, SHUTDOWN_SEND);
    assert!(rest_of(&mut peer, &mut host).is_empty());
    assert!(peer.socket(G).reset);
}

#[test]
fn a_guest_that_reads_no_more_breaks_the_hosts_pipe_and_goes_on_sending() {
    let mut peer = Peer::new();
    let mut host = peer.connect(G);
    write_some(&mut host, &vec![0; 2 << 20]);
    peer.pump();
    peer.say(G, Op::Shutdown, SHUTDOWN_RECEIVE);
    let error = host.write(b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    guest_sends(&mut peer, &mut host, &pattern(1, 0, 500_000));
    assert!(!peer.socket(G).reset);
    peer.say(G, Op::Shutdown, SHUTDOWN_SEND);
    peer.pump();
    assert!(peer.socket(G).reset, "the host's unsent bytes hold nothing up");
    assert!(rest_of(&mut peer, &mut host).is_empty());
}

#[test]
fn a_guest_that_closes_after_all_its_data_is_let_go_and_the_host_reads_it_all() {
    let mut peer = Peer::new();
    let mut host = peer.connect(G);
    // Unread by the guest: it must not turn the end into an error.
    host.write_all(b"never read").unwrap();
    let bytes = pattern(1, 0, 1 << 20);
    let mut sent = 0;
    while sent < bytes.len() {
        let now = peer.send(G, &bytes[sent..]);
        peer.pump();
        if now == 0 {
            break;
        }
        sent += now;
    }
    peer.close(G);
    peer.pump();
    assert!(peer.socket(G).reset, "it waits for no reader");
    assert!(peer.muxer.streams.is_empty());
    assert_eq!(peer.muxer.lingering(), 1);
    assert_eq!(host.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert!(rest_of(&mut peer, &mut host) == bytes[..sent]);
    assert_eq!(peer.muxer.lingering(), 0);
}

#[test]
fn what_a_guest_sent_before_a_reset_is_read_and_then_the_end() {
    let mut peer = Peer::new();
    let mut host = peer.connect(G);
    let bytes = pattern(1, 0, 1 << 20);
    let mut sent = 0;
    loop {
        let now = peer.send(G, &bytes[sent..]);
        peer.pump();
        sent += now;
        if now == 0 {
            break;
        }
    }
    peer.say(G, Op::Reset, 0);
    assert_eq!(peer.pump(), 0, "a reset is not answered");
    assert!(rest_of(&mut peer, &mut host) == bytes[..sent]);
    assert_eq!(host.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_guest_that_resets_over_unread_bytes_gives_the_host_an_error_after_the_data() {
    let mut peer = Peer::new();
    let mut host = peer.connect(G);
    peer.send(G, b"data");
    host.write_all(b"unread").unwrap();
    peer.say(G, Op::Reset, 0);
    let mut some = [0; 10];
    assert_eq!(host.read(&mut some).unwrap(), 4);
    assert_eq!(
        host.read(&mut some).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn a_lingering_reader_that_vanishes_leaves_nothing() {
    let mut peer = Peer::new();
    let host = peer.connect(G);
    while peer.send(G, &[9; 65536]) > 0 {
        peer.pump();
    }
    peer.close(G);
    peer.pump();
    assert_eq!(peer.muxer.lingering(), 1);
    drop(host);
    peer.pump();
    assert_eq!(peer.muxer.lingering(), 0);
}

#[test]
fn a_port_is_free_for_a_new_connection_while_the_old_ones_bytes_linger() {
    let mut peer = Peer::new();
    let mut old = peer.connect(G);
    let bytes = pattern(1, 0, 1 << 20);
    let mut sent = 0;
    while let now @ 1.. = peer.send(G, &bytes[sent..]) {
        sent += now;
        peer.pump();
    }
    peer.close(G);
    peer.pump();
    let mut new = peer.connect(G);
    guest_sends(&mut peer, &mut new, &pattern(3, 0, 300_000));
    assert!(rest_of(&mut peer, &mut old) == bytes[..sent]);
}
