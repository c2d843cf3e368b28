//! Connections: agreeing, many requests at once, flushing, hostile frames, withdrawal, and what is left open.

use std::collections::BTreeSet;

use cofferdam_p9::{
    ServerOptions,
    wire::{NO_FID, OpenFlags, Reply, Request},
};

use crate::{client::Client, rig::Rig};

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
