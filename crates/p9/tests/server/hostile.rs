//! Hostile clients: broken frames, wrong tags, messages out of turn, and clients that read nothing.

use std::{io::Write, time::Duration};

use cofferdam_p9::{
    P9Error,
    wire::{OpenFlags, Reply, Request},
};

use crate::{client::Client, rig::Rig};

fn hostile(bytes: &[u8]) -> Result<(), P9Error> {
    let rig = Rig::new();
    let (stream, end) = rig.raw_connection();
    let mut client = Client::new(stream, 8192);
    // The server may have closed before everything is written.
    let _ = client.stream.write_all(bytes);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    while client.receive().is_some() {}
    rig.block_on(end).unwrap()
}

#[test]
fn broken_framing_ends_the_connection_with_its_reason() {
    let too_large = 8193_u32.to_le_bytes();
    assert!(matches!(
        hostile(&too_large),
        Err(P9Error::FrameSize {
            said: 8193,
            most: 8192,
            ..
        })
    ));
    assert!(matches!(
        hostile(&u32::MAX.to_le_bytes()),
        Err(P9Error::FrameSize { .. })
    ));
    for short in 0..7_u32 {
        assert!(
            matches!(hostile(&short.to_le_bytes()), Err(P9Error::FrameSize { .. })),
            "{short}"
        );
    }
    assert!(
        matches!(hostile(&[20, 0, 0, 0, 120, 1]), Err(P9Error::Stream { .. })),
        "cut short"
    );
    assert!(
        matches!(hostile(&[7, 0]), Err(P9Error::Stream { .. })),
        "cut short in the size"
    );
    assert!(hostile(&[]).is_ok());
}

#[test]
fn a_message_before_the_version_is_limited_and_refused() {
    let rig = Rig::new();
    let (stream, _end) = rig.raw_connection();
    let mut client = Client::silent(stream);
    assert_eq!(client.attach_as("share", 0).unwrap_err(), libc::EPROTO);
    let (stream, end) = rig.raw_connection();
    let mut client = Client::silent(stream);
    let _ = client.stream.write_all(&(1_u32 << 20).to_le_bytes());
    assert!(client.receive().is_none());
    assert!(matches!(
        rig.block_on(end).unwrap(),
        Err(P9Error::FrameSize { .. })
    ));
}

#[test]
fn a_tag_used_twice_ends_the_connection() {
    let rig = Rig::new();
    let (stream, end) = rig.raw_connection();
    let mut client = Client::new(stream, 1 << 20);
    let root = client.attach("share");
    let f = client.create(root, "f", OpenFlags::READ_WRITE, 0o644, 0).unwrap();
    let mut frames = Vec::new();
    let mut frame = Vec::new();
    for _ in 0..1000 {
        Request::Fsync { fid: f, datasync: 0 }
            .encode(5, &mut frame)
            .unwrap();
        frames.extend_from_slice(&frame);
    }
    let _ = client.stream.write_all(&frames);
    assert!(matches!(
        rig.block_on(end).unwrap(),
        Err(P9Error::DuplicateTag(5))
    ));
}

#[test]
fn frames_that_are_no_message_are_answered_and_the_connection_goes_on() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    let errno = |client: &mut Client, body: &[u8]| {
        let mut frame = (body.len() as u32 + 4).to_le_bytes().to_vec();
        frame.extend_from_slice(body);
        client.stream.write_all(&frame).unwrap();
        match Reply::parse(&client.receive().unwrap()).unwrap() {
            (9, Reply::Lerror { ecode }) => ecode as i32,
            other => panic!("{other:?}"),
        }
    };
    // Types that 9P2000.L does not use, and replies.
    for kind in [0, 6, 7, 9, 101, 106, 112, 114, 124, 126, 255] {
        assert_eq!(errno(&mut client, &[kind, 9, 0]), libc::EOPNOTSUPP, "type {kind}");
    }
    // Tgetattr cut short and with a byte too many, Twalk of 17 names, Twrite whose count is a lie.
    assert_eq!(errno(&mut client, &[24, 9, 0, 1, 0]), libc::EPROTO);
    assert_eq!(errno(&mut client, &[120, 9, 0, 1, 0, 0, 0, 0]), libc::EPROTO);
    let mut walk = vec![110, 9, 0, 1, 0, 0, 0, 2, 0, 0, 0, 17, 0];
    walk.extend([0; 34]);
    assert_eq!(errno(&mut client, &walk), libc::EPROTO);
    let write = [
        118, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 1,
    ];
    assert_eq!(errno(&mut client, &write), libc::EPROTO);
    client.getattr(root).unwrap();
}

#[test]
fn a_client_that_reads_no_replies_is_not_served_for_ever() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    let mut frame = Vec::new();
    Request::Getattr {
        fid: root,
        mask: Default::default(),
    }
    .encode(1, &mut frame)
    .unwrap();
    client
        .stream
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut sent = 0_usize;
    for tag in 0..u16::MAX {
        frame[5..7].copy_from_slice(&tag.to_le_bytes());
        if client.stream.write_all(&frame).is_err() {
            break;
        }
        sent += 1;
    }
    assert!(
        sent < 60_000,
        "the server took {sent} requests from a client that reads nothing"
    );
}
