//! What is left open when an export is withdrawn or a connection ends: nothing.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use cofferdam_p9::{
    P9Error,
    wire::{OpenFlags, Reply, Request},
};

use crate::{
    client::Client,
    rig::{Rig, open_below},
};

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
