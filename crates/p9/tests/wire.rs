//! The codec: any bytes are refused without a panic or parsed into what serialises back to the same bytes.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use cofferdam_p9::wire::{HEADER_BYTES, MAX_WALK, Names, Reply, Request, Text, WireError, header};
use proptest::prelude::*;

/// Every message type of both directions, and some that are none.
const KINDS: std::ops::Range<u8> = 0..130;

fn frame(kind: u8, tag: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = ((HEADER_BYTES + body.len()) as u32).to_le_bytes().to_vec();
    frame.push(kind);
    frame.extend_from_slice(&tag.to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

fn again_request(bytes: &[u8]) -> Option<Vec<u8>> {
    let (tag, message) = Request::parse(bytes).ok()?;
    let mut out = Vec::new();
    message.encode(tag, &mut out).unwrap();
    assert_eq!(Request::parse(&out).unwrap(), (tag, message));
    Some(out)
}

fn again_reply(bytes: &[u8]) -> Option<Vec<u8>> {
    let (tag, message) = Reply::parse(bytes).ok()?;
    let mut out = Vec::new();
    message.encode(tag, &mut out).unwrap();
    Some(out)
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(out) = again_request(&bytes) {
            prop_assert_eq!(&out, &bytes);
        }
        if let Some(out) = again_reply(&bytes) {
            prop_assert_eq!(&out, &bytes);
        }
    }

    /// With a right header, so that the bodies are reached.
    #[test]
    fn any_body_is_refused_or_comes_back(
        kind in KINDS,
        tag in any::<u16>(),
        body in proptest::collection::vec(prop_oneof![3 => Just(0_u8), 1 => 0..4_u8, 1 => any::<u8>()], 0..170),
    ) {
        let bytes = frame(kind, tag, &body);
        if let Some(out) = again_request(&bytes) {
            prop_assert_eq!(&out, &bytes);
        }
        if let Some(out) = again_reply(&bytes) {
            prop_assert_eq!(&out, &bytes);
        }
    }

    #[test]
    fn messages_of_variable_length_come_back(
        tag in any::<u16>(),
        fid in any::<u32>(),
        offset in any::<u64>(),
        names in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..=MAX_WALK),
        data in proptest::collection::vec(any::<u8>(), 0..3000),
    ) {
        let mut walk = Names::default();
        for name in &names {
            prop_assert!(walk.push(Text(name)));
        }
        let mut out = Vec::new();
        for message in [
            Request::Walk { fid, newfid: !fid, names: walk },
            Request::Write { fid, offset, data: &data },
            Request::Symlink { dfid: fid, name: "name".into(), target: Text(&data), gid: 7 },
        ] {
            message.encode(tag, &mut out).unwrap();
            prop_assert_eq!(Request::parse(&out).unwrap(), (tag, message));
            for cut in [0, 3, 6, 7, out.len() / 2, out.len() - 1] {
                prop_assert!(Request::parse(&out[..cut]).is_err());
            }
        }
    }
}

#[test]
fn a_known_frame_has_its_known_bytes() {
    let mut names = Names::default();
    assert!(names.push("etc".into()));
    let mut out = Vec::new();
    Request::Walk {
        fid: 1,
        newfid: 2,
        names,
    }
    .encode(3, &mut out)
    .unwrap();
    let expected = [
        22, 0, 0, 0, 110, 3, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 3, 0, b'e', b't', b'c',
    ];
    assert_eq!(out, expected);
    Reply::Lerror { ecode: 2 }.encode(0x0102, &mut out).unwrap();
    assert_eq!(out, [11, 0, 0, 0, 7, 2, 1, 2, 0, 0, 0]);
}

#[test]
fn attributes_take_the_bytes_the_linux_client_expects() {
    let mut out = Vec::new();
    Reply::Getattr {
        attributes: Default::default(),
    }
    .encode(1, &mut out)
    .unwrap();
    assert_eq!(out.len(), HEADER_BYTES + 8 + 13 + 3 * 4 + 15 * 8);
    Reply::Statfs {
        stats: Default::default(),
    }
    .encode(1, &mut out)
    .unwrap();
    assert_eq!(out.len(), HEADER_BYTES + 2 * 4 + 6 * 8 + 4);
}

#[test]
fn errors_say_what_is_wrong() {
    assert_eq!(Request::parse(&[]), Err(WireError::Truncated));
    assert_eq!(
        header(&[9, 0, 0, 0, 120, 0, 0]),
        Err(WireError::Size { said: 9, len: 7 })
    );
    assert_eq!(
        Request::parse(&frame(121, 0, &[])),
        Err(WireError::UnknownType(121))
    );
    assert_eq!(Request::parse(&frame(120, 0, &[0; 3])), Err(WireError::Truncated));
    assert_eq!(
        Request::parse(&frame(120, 0, &[0; 9])),
        Err(WireError::Trailing(5))
    );
    assert_eq!(
        Request::parse(&frame(110, 0, &[0, 0, 0, 0, 0, 0, 0, 0, 17, 0])),
        Err(WireError::WalkTooLong(17))
    );
    let long = vec![0; 70_000];
    let mut out = Vec::new();
    let message = Reply::Readlink { target: Text(&long) };
    assert_eq!(message.encode(1, &mut out), Err(WireError::FieldTooLong(70_000)));
}
