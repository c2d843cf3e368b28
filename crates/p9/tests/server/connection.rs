//! Connections: agreeing, many requests at once, flushing, hostile frames, withdrawal, and what is left open.

use std::{
    collections::BTreeSet,
    io::Write,
    time::{Duration, Instant},
};

use cofferdam_p9::{
    P9Error, ServerOptions,
    wire::{NO_FID, OpenFlags, Reply, Request},
};

use crate::{
    client::Client,
    rig::{Rig, open_below},
};

#[test]
fn the_smaller_of_both_message_sizes_is_agreed_on() {
    let rig = Rig::with(ServerOptions {
        max_msize: 100_000,
        ..Default::default()
    });
    let mut client = rig.connect();
    assert_eq!(
        client.version(u32::MAX, "9P2000.L"),
        (100_000, b"9P2000.L".to_vec())
    );
    assert_eq!(client.version(8192, "9P2000.L"), (8192, b"9P2000.L".to_vec()));
    for (msize, version) in [
        (8192, "9P2000"),
        (8192, "9P2000.u"),
        (8192, ""),
        (511, "9P2000.L"),
        (0, "9P2000.L"),
    ] {
        assert_eq!(
            client.version(msize, version).1,
            b"unknown",
            "{msize} {version:?}"
        );
        assert_eq!(
            client.attach_as("share", 0).unwrap_err(),
            libc::EPROTO,
            "nothing was agreed on"
        );
    }
}

#[test]
fn one_mebibyte_goes_in_one_message() {
    let rig = Rig::new();
    let (stream, _end) = rig.raw_connection();
    let mut client = Client::new(stream, u32::MAX);
    assert_eq!(client.msize, 1 << 20);
    let root = client.attach("share");
    let f = client.create(root, "f", OpenFlags::READ_WRITE, 0o644, 0).unwrap();
    let data: Vec<u8> = (0..(1 << 20) - 23_u32).map(|index| (index % 251) as u8).collect();
    assert_eq!(client.write(f, 3, &data).unwrap() as usize, data.len());
    // More than fits is cut to what fits.
    let read = client.read(f, 3, u32::MAX).unwrap();
    assert_eq!(read.len(), data.len());
    assert!(read == data);
    assert_eq!(client.write(f, 1 << 20, b"end").unwrap(), 3);
    assert_eq!(client.read(f, 0, 1 << 20).unwrap().len(), (1 << 20) - 11);
}

#[test]
fn the_smallest_messages_suffice_for_everything() {
    let rig = Rig::new();
    let (stream, _end) = rig.raw_connection();
    let mut client = Client::new(stream, 512);
    let root = client.attach("share");
    let long = "n".repeat(255);
    client.mkdir(root, &long, 0o755, 0).unwrap();
    assert_eq!(client.names(root), [".", "..", &long]);
    let names: Vec<&str> = vec![".."; 16];
    client.walk(root, &names).unwrap();
    let f = client.create(root, "f", OpenFlags::READ_WRITE, 0o644, 0).unwrap();
    for index in 0..20 {
        assert_eq!(client.write(f, index * 400, &[index as u8; 400]).unwrap(), 400);
    }
    assert_eq!(client.read(f, 0, u32::MAX).unwrap().len(), 512 - 11);
    client.setxattr(f, "user.large", &[7; 2000], 0).unwrap();
    assert_eq!(client.getxattr(f, "user.large").unwrap(), [7; 2000]);
    client.symlink(root, "s", "short", 0).unwrap();
    std::os::unix::fs::symlink("t".repeat(1000), rig.path("long")).unwrap();
    let s = client.walk(root, &["long"]).unwrap();
    assert_eq!(client.readlink(s).unwrap_err(), libc::ENAMETOOLONG);
}

#[test]
fn sixty_four_requests_are_under_way_at_once() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    for tag in 0..64 {
        std::fs::write(rig.path(&format!("f{tag}")), vec![tag as u8; 5000]).unwrap();
    }
    let fids: Vec<_> = (0..64)
        .map(|tag| {
            client
                .open_at(root, &[&format!("f{tag}")], OpenFlags::empty())
                .unwrap()
        })
        .collect();
    for round in 0..20 {
        for (tag, fid) in fids.iter().enumerate() {
            client.send(
                tag as u16,
                &Request::Read {
                    fid: *fid,
                    offset: 0,
                    count: 4000 + round,
                },
            );
        }
        let mut tags = BTreeSet::new();
        for _ in 0..64 {
            let frame = client.receive().unwrap();
            match Reply::parse(&frame).unwrap() {
                (tag, Reply::Read { data }) => {
                    assert!(data.len() as u32 == 4000 + round && data.iter().all(|byte| *byte == tag as u8));
                    tags.insert(tag);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(tags.len(), 64);
    }
}

#[test]
fn more_requests_than_may_be_under_way_wait_and_are_all_answered() {
    let rig = Rig::with(ServerOptions {
        max_in_flight: 2,
        ..Default::default()
    });
    let (mut client, root) = rig.attached();
    let mut writer = Client::silent(client.stream.try_clone().unwrap());
    let sender = std::thread::spawn(move || {
        for tag in 0..5000 {
            writer.send(
                tag,
                &Request::Walk {
                    fid: root,
                    newfid: 10_000 + u32::from(tag),
                    names: Default::default(),
                },
            );
        }
    });
    let mut tags = BTreeSet::new();
    for _ in 0..5000 {
        let frame = client.receive().unwrap();
        match Reply::parse(&frame).unwrap() {
            (tag, Reply::Walk { .. }) => assert!(tags.insert(tag)),
            other => panic!("{other:?}"),
        }
    }
    sender.join().unwrap();
}

#[test]
fn a_flush_is_answered_after_what_it_flushes() {
    let rig = Rig::new();
    let (mut client, root) = rig.attached();
    let f = client.create(root, "f", OpenFlags::READ_WRITE, 0o644, 0).unwrap();
    for round in 0..200_u64 {
        client.send(
            1,
            &Request::Write {
                fid: f,
                offset: 0,
                data: &round.to_le_bytes(),
            },
        );
        client.send(2, &Request::Flush { oldtag: 1 });
        client.send(3, &Request::Flush { oldtag: 2 });
        let mut answered = Vec::new();
        while answered.last() != Some(&3) {
            let frame = client.receive().unwrap();
            let (tag, reply) = Reply::parse(&frame).unwrap();
            match reply {
                Reply::Write { .. } => assert_eq!(tag, 1),
                Reply::Flush {} => assert_ne!(tag, 1),
                other => panic!("{other:?}"),
            }
            answered.push(tag);
        }
        assert!(
            answered == [1, 2, 3] || answered == [2, 3] || answered == [1, 3],
            "{answered:?}"
        );
        if answered == [1, 3] {
            panic!("the first flush was never answered");
        }
        // The tag is free again.
        assert_eq!(
            client.read(f, 0, 8).unwrap().len(),
            8.min(client.getattr(f).unwrap().size as usize)
        );
    }
    client.send(9, &Request::Flush { oldtag: 777 });
    assert!(matches!(
        Reply::parse(&client.receive().unwrap()),
        Ok((9, Reply::Flush {}))
    ));
}

#[test]
fn a_new_version_forgets_everything_before() {
    let rig = Rig::new();
    std::fs::write(rig.path("f"), "").unwrap();
    let (mut client, root) = rig.attached();
    client.open_at(root, &["f"], OpenFlags::READ_WRITE).unwrap();
    assert_eq!(rig.exports.open_fids("share"), 2);
    client.version(8192, "9P2000.L");
    assert_eq!(rig.exports.open_fids("share"), 0);
    assert_eq!(client.getattr(root).unwrap_err(), libc::EBADF);
    client.attach("share");
}

#[test]
fn authentication_is_refused_and_attach_needs_no_more() {
    let rig = Rig::new();
    let mut client = rig.connect();
    let request = Request::Auth {
        afid: 5,
        uname: "root".into(),
        aname: "share".into(),
        n_uname: 0,
    };
    let frame = client.rpc(&request);
    let refused = libc::EOPNOTSUPP as u32;
    assert!(matches!(Reply::parse(&frame), Ok((_, Reply::Lerror { ecode })) if ecode == refused));
    let root = client.attach("share");
    let again = Request::Attach {
        fid: root,
        afid: NO_FID,
        uname: "".into(),
        aname: "share".into(),
        n_uname: 0,
    };
    let frame = client.rpc(&again);
    assert!(matches!(Reply::parse(&frame), Ok((_, Reply::Lerror { ecode })) if ecode == libc::EBADF as u32));
}

#[test]
fn fids_are_limited() {
    let rig = Rig::with(ServerOptions {
        max_fids: 10,
        ..Default::default()
    });
    let (mut client, root) = rig.attached();
    let fids: Vec<_> = (0..9).map(|_| client.walk(root, &[]).unwrap()).collect();
    assert_eq!(client.walk(root, &[]).unwrap_err(), libc::EMFILE);
    client.clunk(fids[0]).unwrap();
    client.walk(root, &[]).unwrap();
}

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

#[test]
fn a_withdrawn_export_closes_its_connections_and_files() {
    let rig = Rig::new();
    rig.export("other", false, None);
    std::fs::write(rig.path("f"), "").unwrap();
    let (stream, end) = rig.raw_connection();
    let mut client = Client::new(stream, 8192);
    let root = client.attach("share");
    let f = client.open_at(root, &["f"], OpenFlags::READ_WRITE).unwrap();
    client.lock(f, 1, 0, 0, 1).unwrap();
    let (mut bystander, other_root) = rig.attached_to("other");
    assert_eq!(rig.exports.open_fids("share"), 2);
    assert_eq!(rig.exports.names(), ["other", "share"]);

    assert!(rig.block_on(rig.exports.remove_and_wait("share")));
    assert_eq!(open_below(&rig.path("f")), 0);
    assert!(client.receive().is_none(), "the connection is closed");
    assert!(matches!(rig.block_on(end).unwrap(), Err(P9Error::Withdrawn)));
    assert!(!rig.exports.remove("share"));
    assert_eq!(rig.exports.names(), ["other"]);
    bystander.getattr(other_root).unwrap();
    assert_eq!(rig.connect().attach_as("share", 0).unwrap_err(), libc::ENOENT);
    rig.export("share", false, None);
    rig.attached();
}

#[test]
fn an_export_can_be_withdrawn_while_requests_are_under_way() {
    let rig = Rig::new();
    std::fs::write(rig.path("f"), vec![0; 100_000]).unwrap();
    for _ in 0..20 {
        let (stream, end) = rig.raw_connection();
        let mut client = Client::new(stream, 1 << 20);
        let root = client.attach("share");
        let busy = std::thread::spawn(move || {
            let mut frame = Vec::new();
            let mut tag = 0_u16;
            loop {
                tag = (tag + 1) % 1000;
                let newfid = 1000 + u32::from(tag);
                Request::Walk {
                    fid: root,
                    newfid,
                    names: Default::default(),
                }
                .encode(tag, &mut frame)
                .unwrap();
                if client.stream.write_all(&frame).is_err() || client.receive().is_none() {
                    break;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(5));
        assert!(rig.block_on(rig.exports.remove_and_wait("share")));
        let _ = rig.block_on(end).unwrap();
        busy.join().unwrap();
        assert_eq!(open_below(rig.dir.path()), 0, "nothing of the export stays open");
        rig.export("share", false, None);
    }
}

#[test]
fn a_connection_that_ends_leaves_nothing_open() {
    let rig = Rig::new();
    std::fs::create_dir_all(rig.path("a/b")).unwrap();
    std::fs::write(rig.path("a/f"), "x").unwrap();
    let before = open_below(rig.dir.path());
    for abrupt in [false, true] {
        let (stream, end) = rig.raw_connection();
        let mut client = Client::new(stream, 8192);
        let root = client.attach("share");
        for _ in 0..50 {
            client.open_at(root, &["a", "f"], OpenFlags::READ_WRITE).unwrap();
            client.open_at(root, &["a"], OpenFlags::DIRECTORY).unwrap();
            client
                .create(root, "new", OpenFlags::READ_WRITE, 0o600, 0)
                .unwrap();
        }
        let f = client.walk(root, &["a", "f"]).unwrap();
        let _ = client.getxattr(f, "user.absent");
        assert!(open_below(rig.dir.path()) >= before + 300);
        if abrupt {
            // A request of which only the half arrives.
            client.stream.write_all(&[30, 0, 0, 0, 24]).unwrap();
        }
        drop(client);
        let ended = rig.block_on(end).unwrap();
        assert_eq!(ended.is_err(), abrupt, "{ended:?}");
        assert_eq!(open_below(rig.dir.path()), before);
        assert_eq!(rig.exports.open_fids("share"), 0);
    }
}

#[test]
fn serving_that_is_given_up_leaves_nothing_open() {
    let rig = Rig::new();
    let before = open_below(rig.dir.path());
    let (stream, end) = rig.raw_connection();
    let mut client = Client::new(stream, 8192);
    let root = client.attach("share");
    client.create(root, "f", OpenFlags::READ_WRITE, 0o600, 0).unwrap();
    end.abort();
    let _ = rig.block_on(end);
    let until = Instant::now() + Duration::from_secs(5);
    while open_below(rig.dir.path()) != before && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(open_below(rig.dir.path()), before);
}

#[test]
fn a_clunk_does_not_close_a_file_under_another_request() {
    let rig = Rig::new();
    let (stream, _end) = rig.raw_connection();
    let mut client = Client::new(stream, 1 << 20);
    let root = client.attach("share");
    std::fs::write(rig.path("f"), vec![7; 900_000]).unwrap();
    for _ in 0..50 {
        let f = client.open_at(root, &["f"], OpenFlags::empty()).unwrap();
        client.send(
            1,
            &Request::Read {
                fid: f,
                offset: 0,
                count: 900_000,
            },
        );
        client.send(2, &Request::Clunk { fid: f });
        for _ in 0..2 {
            let frame = client.receive().unwrap();
            match Reply::parse(&frame).unwrap() {
                (1, Reply::Read { data }) => {
                    assert!(data.len() == 900_000 && data.iter().all(|byte| *byte == 7))
                }
                (1, Reply::Lerror { ecode }) => assert_eq!(ecode as i32, libc::EBADF, "the clunk came first"),
                (2, Reply::Clunk {}) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
