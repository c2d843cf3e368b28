//! A guest that breaks every rule: no panic, no growth, and the other streams live.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::{
    MAX_REFUSALS,
    peer::{GUEST_CID, PORT, Peer, read_some},
};
use crate::packet::{HOST_CID, Header, Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM};

const G: u32 = 40;
/// A well-behaved stream beside the one under attack.
const GOOD: u32 = 41;

fn packet(op: u16) -> Header {
    Header {
        src_cid: GUEST_CID,
        dst_cid: HOST_CID,
        src_port: G,
        dst_port: PORT,
        kind: TYPE_STREAM,
        op,
        buf_alloc: 1 << 18,
        ..Header::default()
    }
}

/// Everything the device has to say, by operation.
fn answers(peer: &mut Peer) -> Vec<Header> {
    peer.muxer.poll();
    std::iter::from_fn(|| peer.next_packet())
        .map(|(header, _)| header)
        .collect()
}

/// Brings a connection into a state; returns the host's end, if it is still held.
type Enter = fn(&mut Peer) -> Option<UnixStream>;

/// The states a connection can be in, each with a way into it.
const STATES: [(&str, Enter); 7] = [
    ("none", |_| None),
    ("open", |peer| Some(peer.connect(G))),
    ("response not yet sent", |peer| {
        peer.dial(G);
        peer.listener.try_accept()
    }),
    ("guest done", |peer| {
        let host = peer.connect(G);
        peer.say(G, Op::Shutdown, SHUTDOWN_SEND);
        Some(host)
    }),
    ("guest deaf", |peer| {
        let host = peer.connect(G);
        peer.say(G, Op::Shutdown, SHUTDOWN_RECEIVE);
        Some(host)
    }),
    ("host gone", |peer| {
        drop(peer.connect(G));
        None
    }),
    ("closed", |peer| {
        let host = peer.connect(G);
        peer.close(G);
        peer.pump();
        Some(host)
    }),
];

#[test]
fn every_operation_is_survived_in_every_state_and_a_new_connection_works_after_it() {
    for (state, enter) in STATES {
        for op in 0..=9_u16 {
            for payload in [&b""[..], b"payload"] {
                for flags in [0, 1, 2, 3, u32::MAX] {
                    let mut peer = Peer::new();
                    let mut good = peer.connect(GOOD);
                    let _host = enter(&mut peer);
                    let header = Header {
                        flags,
                        len: payload.len() as u32,
                        ..packet(op)
                    };
                    peer.muxer.receive(&header, payload);
                    answers(&mut peer);
                    assert_eq!(peer.send(GOOD, b"good"), 4);
                    assert_eq!(read_some(&mut good, 4).0, b"good", "{state}, op {op}");
                    while peer.listener.try_accept().is_some() {}
                    peer.connect(G);
                }
            }
        }
    }
}

#[test]
fn operations_that_make_no_sense_reset_the_stream() {
    for op in [0, Op::Response as u16, 8, u16::MAX] {
        let mut peer = Peer::new();
        let mut host = peer.connect(G);
        peer.muxer.receive(&packet(op), &[]);
        assert!(
            answers(&mut peer)
                .iter()
                .any(|answer| answer.op == Op::Reset as u16),
            "op {op}"
        );
        assert_eq!(read_some(&mut host, 1), (Vec::new(), true));
    }
}

#[test]
fn only_packets_for_this_device_from_its_guest_are_served() {
    let mut peer = Peer::new();
    let _host = peer.connect(G);
    for op in 1..=7 {
        let elsewhere = Header {
            dst_cid: 1,
            ..packet(op)
        };
        peer.muxer.receive(&elsewhere, &[]);
        let of_no_kind = Header {
            kind: 2,
            ..packet(op)
        };
        peer.muxer.receive(&of_no_kind, &[]);
        let resets = answers(&mut peer);
        assert!(
            resets
                .iter()
                .all(|reset| reset.op == Op::Reset as u16 && reset.dst_cid == GUEST_CID)
        );
        assert_eq!(resets.len(), if op == Op::Reset as u16 { 0 } else { 2 });
        // Nobody is there to be answered.
        let from_another = Header {
            src_cid: 9,
            ..packet(op)
        };
        peer.muxer.receive(&from_another, &[]);
        assert_eq!(answers(&mut peer), []);
    }
    assert_eq!(peer.muxer.streams.len(), 1, "none of them touched the stream");
}

#[test]
fn a_guest_that_sends_without_credit_is_reset_and_what_it_sent_before_is_read() {
    let mut peer = Peer::new();
    let mut host = peer.connect(G);
    let full = [5; 65536];
    let mut sent = 0;
    while !answers(&mut peer)
        .iter()
        .any(|answer| answer.op == Op::Reset as u16)
    {
        let header = Header {
            len: full.len() as u32,
            ..packet(Op::Data as u16)
        };
        peer.muxer.receive(&header, &full);
        sent += full.len();
        assert!(sent < 2 << 20, "the device buffers without end");
    }
    let mut received = 0;
    loop {
        let (bytes, ended) = read_some(&mut host, 1 << 20);
        received += bytes.len();
        if ended {
            break;
        }
        peer.muxer.poll();
    }
    assert_eq!(received, sent - full.len());
}

#[test]
fn a_guest_that_claims_to_have_read_what_was_not_sent_is_reset() {
    let mut peer = Peer::new();
    let _host = peer.connect(G);
    let header = Header {
        fwd_cnt: 1,
        ..packet(Op::CreditUpdate as u16)
    };
    peer.muxer.receive(&header, &[]);
    assert_eq!(answers(&mut peer)[0].op, Op::Reset as u16);
}

#[test]
fn a_packet_that_could_not_be_read_resets_its_stream() {
    let mut peer = Peer::new();
    let mut host = peer.connect(G);
    peer.muxer.receive_broken(&packet(Op::Data as u16));
    assert_eq!(answers(&mut peer)[0].op, Op::Reset as u16);
    assert!(read_some(&mut host, 1).1);
    peer.muxer.receive_broken(&packet(Op::Data as u16));
    assert_eq!(
        answers(&mut peer)[0].op,
        Op::Reset as u16,
        "there is no such stream any more"
    );
}

#[test]
fn floods_that_are_not_answered_for_lack_of_room_grow_nothing() {
    let mut peer = Peer::new();
    let _host = peer.connect(GOOD);
    for round in 0..20_000_u32 {
        // Asked for credit again and again; refused; opened and reset, at one port and at ever new ones.
        peer.say(GOOD, Op::CreditRequest, 0);
        let elsewhere = Header {
            dst_port: 9,
            ..packet(Op::Request as u16)
        };
        peer.muxer.receive(&elsewhere, &[]);
        peer.muxer.receive(&packet(Op::Request as u16), &[]);
        let another = Header {
            src_port: 1000 + round,
            ..packet(Op::Request as u16)
        };
        peer.muxer.receive(&another, &[]);
        let end = if round % 2 == 0 { Op::Reset } else { Op::Response };
        peer.muxer.receive(
            &Header {
                op: end as u16,
                ..another
            },
            &[],
        );
        while peer.listener.try_accept().is_some() {}
    }
    assert_eq!(peer.muxer.streams.len(), 2);
    assert!(peer.muxer.ready.len() <= 2, "{}", peer.muxer.ready.len());
    assert_eq!(peer.muxer.refusals.len(), MAX_REFUSALS);
    let updates = answers(&mut peer)
        .iter()
        .filter(|answer| answer.op == Op::CreditUpdate as u16)
        .count();
    assert_eq!(updates, 1);
}

fn headers() -> impl Strategy<Value = Header> {
    let port = prop_oneof![8 => Just(G), 2 => 38_u32..44, 1 => any::<u32>()];
    let op = prop_oneof![9 => 1_u16..=7, 1 => any::<u16>()];
    let word = || prop_oneof![3 => Just(0_u32), 3 => 0_u32..400_000, 1 => any::<u32>()];
    let identity = (
        prop_oneof![20 => Just(GUEST_CID), 1 => any::<u64>()],
        prop_oneof![20 => Just(HOST_CID), 1 => any::<u64>()],
        prop_oneof![20 => Just(TYPE_STREAM), 1 => any::<u16>()],
        prop_oneof![20 => Just(PORT), 1 => any::<u32>()],
    );
    (identity, port, op, word(), word(), word()).prop_map(
        |((src_cid, dst_cid, kind, dst_port), src_port, op, flags, buf_alloc, fwd_cnt)| Header {
            src_cid,
            dst_cid,
            src_port,
            dst_port,
            len: 0,
            kind,
            op,
            flags,
            buf_alloc,
            fwd_cnt,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_sequence_of_packets_panics_or_grows(
        packets in proptest::collection::vec((headers(), 0_usize..70_000, any::<u8>()), 1..150),
    ) {
        let mut peer = Peer::new();
        let mut hosts = Vec::new();
        for (mut header, length, choice) in packets {
            let payload = vec![choice; if header.op == Op::Data as u16 { length } else { 0 }];
            header.len = payload.len() as u32;
            peer.muxer.receive(&header, &payload);
            hosts.extend(peer.listener.try_accept());
            match choice % 8 {
                0 if !hosts.is_empty() => drop(hosts.swap_remove(usize::from(choice) % hosts.len())),
                1 => hosts.iter_mut().for_each(|host| drop(read_ignoring_errors(host))),
                2 => hosts.iter_mut().for_each(write_ignoring_errors),
                3 | 4 => drop(answers(&mut peer)),
                _ => peer.muxer.poll(),
            }
            let muxer = &peer.muxer;
            prop_assert!(muxer.ready.len() <= muxer.streams.len());
            prop_assert_eq!(muxer.by_key.len(), muxer.streams.len());
            prop_assert!(muxer.refusals.len() <= MAX_REFUSALS);
        }
        peer.muxer.reset();
        drop(hosts);
        peer.muxer.poll();
        prop_assert!(peer.muxer.streams.is_empty() && peer.muxer.lingering() == 0);
    }
}

fn read_ignoring_errors(host: &mut UnixStream) -> std::io::Result<usize> {
    std::io::Read::read(host, &mut [0; 30_000])
}

fn write_ignoring_errors(host: &mut UnixStream) {
    let _ = std::io::Write::write(host, &[1; 30_000]);
}
