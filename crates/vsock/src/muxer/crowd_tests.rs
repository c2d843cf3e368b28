//! Many streams at once and in sequence: their bytes, their turns, and what they leave.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use super::{
    MAX_BUFFER_BYTES, MAX_CONNECTIONS, MIN_BUFFER_BYTES, buffer_bytes,
    peer::{Peer, pattern, read_some},
};
use crate::packet::Op;

/// Lets this process have so many files open, if it may.
fn allow_files(count: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limits = getrlimit(Resource::Nofile);
    if limits.current.is_some_and(|current| current < count) {
        limits.current = Some(count);
        setrlimit(Resource::Nofile, limits).unwrap_or_else(|error| panic!("{count} open files: {error}"));
    }
}

#[test]
fn a_thousand_connections_at_once_keep_their_bytes_apart() {
    const COUNT: u32 = 1000;
    allow_files(3000);
    let mut peer = Peer::new();
    let mut hosts: Vec<UnixStream> = (0..COUNT).map(|port| peer.connect(port)).collect();
    for round in 0..3_usize {
        let length = [1, 4000, 15_000][round];
        let up = |port: u32| pattern(port, round, length);
        let down = |port: u32| pattern(!port, round, length);
        for (port, host) in (0..COUNT).zip(&mut hosts) {
            assert_eq!(peer.send(port, &up(port)), length);
            host.write_all(&down(port)).unwrap();
        }
        peer.pump();
        for (port, host) in (0..COUNT).zip(&mut hosts) {
            assert!(read_some(host, length).0 == up(port));
            assert!(peer.read(port, length) == down(port));
        }
    }
    for port in 0..COUNT {
        peer.close(port);
    }
    peer.pump();
    for (port, host) in (0..COUNT).zip(&mut hosts) {
        assert!(peer.socket(port).reset);
        assert_eq!(host.read(&mut [0]).unwrap(), 0);
    }
    assert!(peer.muxer.streams.is_empty() && peer.muxer.by_key.is_empty());
}

#[test]
fn ten_thousand_connections_in_sequence_leave_nothing() {
    let mut peer = Peer::new();
    for port in 0..10_000 {
        let mut host = peer.connect(port % 7);
        peer.send(port % 7, b"hello");
        let mut said = [0; 5];
        host.read_exact(&mut said).unwrap();
        if port % 2 == 0 {
            peer.close(port % 7);
        } else {
            drop(host);
        }
        peer.pump();
        assert!(peer.socket(port % 7).reset);
    }
    assert!(peer.muxer.streams.is_empty() && peer.muxer.by_key.is_empty());
    assert!(peer.muxer.ready.is_empty() && peer.muxer.lingering() == 0);
}

#[test]
fn streams_take_turns() {
    let mut peer = Peer::new();
    let mut greedy = peer.connect(1);
    let mut modest = peer.connect(2);
    greedy.write_all(&[1; 100_000]).unwrap();
    peer.muxer.poll();
    modest.write_all(&[2; 10]).unwrap();
    peer.muxer.poll();
    let ports: Vec<u32> = (0..2).map(|_| peer.next_packet().unwrap().0.dst_port).collect();
    assert!(ports.contains(&2), "one packet each: {ports:?}");
}

#[test]
fn a_stream_that_is_full_does_not_hold_up_another() {
    let mut peer = Peer::new();
    let _stuck = peer.connect(1);
    let mut host = peer.connect(2);
    while peer.send(1, &[1; 65536]) > 0 {
        peer.pump();
    }
    assert_eq!(peer.send(2, b"through"), 7);
    assert_eq!(read_some(&mut host, 7).0, b"through");
}

#[test]
fn more_connections_than_there_may_be_are_refused_and_the_others_live() {
    allow_files(3 * MAX_CONNECTIONS as u64);
    let mut peer = Peer::new();
    let mut hosts: Vec<UnixStream> = (0..MAX_CONNECTIONS as u32)
        .map(|port| peer.connect(port))
        .collect();
    peer.dial(10_000);
    peer.pump();
    assert!(peer.socket(10_000).reset);
    assert_eq!(peer.send(4095, b"still here"), 10);
    assert_eq!(read_some(hosts.last_mut().unwrap(), 10).0, b"still here");
    // One whose bytes are still being read counts too.
    while peer.send(0, &[1; 65536]) > 0 {
        peer.pump();
    }
    peer.close(0);
    peer.pump();
    peer.dial(10_001);
    peer.pump();
    assert!(peer.socket(10_001).reset);
    drop(hosts.remove(0));
    peer.muxer.poll();
    peer.connect(10_002);
}

#[test]
fn streams_nobody_accepts_are_refused_before_they_take_all_the_files() {
    allow_files(3 * MAX_CONNECTIONS as u64);
    let mut peer = Peer::new();
    let mut refused = 0;
    for port in 0..3000 {
        peer.dial(port);
        peer.pump();
        // Gone from the guest, but still waiting for the host.
        if peer.socket(port).reset {
            refused += 1;
        } else {
            peer.say(port, Op::Reset, 0);
        }
    }
    assert_eq!(refused, 3000 - 1024);
    while peer.listener.try_accept().is_some() {}
    peer.connect(5000);
}

#[test]
fn buffers_shrink_as_connections_grow_many_and_stay_within_bounds() {
    assert_eq!(buffer_bytes(0) as usize, MAX_BUFFER_BYTES);
    assert_eq!(buffer_bytes(255) as usize, MAX_BUFFER_BYTES);
    assert!((buffer_bytes(256) as usize) < MAX_BUFFER_BYTES);
    assert_eq!(buffer_bytes(usize::MAX - 1) as usize, MIN_BUFFER_BYTES);
    let all: u64 = (0..MAX_CONNECTIONS)
        .map(|others| u64::from(buffer_bytes(others)))
        .sum();
    assert!(all < 256 << 20, "{all}");
}
