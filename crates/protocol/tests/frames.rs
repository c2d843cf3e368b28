//! Frames against hostile and unlucky streams.

use std::io::{self, Read};

use cofferdam_protocol::{
    MessageType,
    frame::{self, Decoder, Frame, FrameError, HEADER_BYTES, MAX_GUEST_FRAME_BYTES, read_frame},
};
use proptest::prelude::*;

fn header(size: u32) -> Vec<u8> {
    let mut bytes = vec![1, 0xb, 0x10, 0x10];
    bytes.extend(size.to_le_bytes());
    bytes.extend([0; 8]);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    let mut decoder = Decoder::new(MAX_GUEST_FRAME_BYTES);
    decoder.push(bytes);
    decoder.next_frame()
}

#[test]
fn a_size_below_the_header_is_refused() {
    for size in [0, 1, 15] {
        assert!(matches!(
            read_frame(&mut header(size).as_slice(), 100),
            Err(FrameError::TooShort { .. })
        ));
        assert!(matches!(decode(&header(size)), Err(FrameError::TooShort { .. })));
    }
    assert_eq!(decode(&header(16)).unwrap().unwrap().body, b"");
}

#[test]
fn a_size_above_the_limit_is_refused_before_its_body_arrives() {
    let limit = MAX_GUEST_FRAME_BYTES as u32;
    assert!(decode(&header(limit)).unwrap().is_none());
    for size in [limit + 1, u32::MAX] {
        assert!(matches!(decode(&header(size)), Err(FrameError::TooLarge { .. })));
        let read = read_frame(&mut header(size).as_slice(), MAX_GUEST_FRAME_BYTES);
        assert!(matches!(read, Err(FrameError::TooLarge { .. })));
    }
}

#[test]
fn the_largest_frame_passes_and_one_byte_more_does_not() {
    let body = vec![b'x'; MAX_GUEST_FRAME_BYTES - HEADER_BYTES];
    let bytes = frame::encode(MessageType(1), 5, &body, MAX_GUEST_FRAME_BYTES).unwrap();
    assert_eq!(decode(&bytes).unwrap().unwrap().body.len(), body.len());
    let body = vec![b'x'; body.len() + 1];
    assert!(matches!(
        frame::encode(MessageType(1), 5, &body, MAX_GUEST_FRAME_BYTES),
        Err(FrameError::TooLarge { size: 65_537, .. })
    ));
}

#[test]
fn a_stream_may_end_only_between_two_frames() {
    let bytes = frame::encode(MessageType(1), 5, b"{}", 100).unwrap();
    for end in 0..bytes.len() {
        let piece = &bytes[..end];
        let mut decoder = Decoder::new(100);
        decoder.push(piece);
        assert!(decoder.next_frame().unwrap().is_none());
        if end == 0 {
            assert!(read_frame(&mut &piece[..], 100).unwrap().is_none());
            decoder.finish().unwrap();
        } else {
            assert!(matches!(
                read_frame(&mut &piece[..], 100),
                Err(FrameError::Truncated { .. })
            ));
            assert!(matches!(decoder.finish(), Err(FrameError::Truncated { .. })));
        }
    }
}

#[test]
fn a_large_size_field_alone_takes_no_memory() {
    /// A stream that claims a large frame, sends little of it, and records the largest buffer it is offered.
    struct Claims {
        bytes: Vec<u8>,
        largest: usize,
    }
    impl Read for Claims {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.largest = self.largest.max(buffer.len());
            let n = buffer.len().min(self.bytes.len());
            buffer[..n].copy_from_slice(&self.bytes[..n]);
            self.bytes.drain(..n);
            Ok(n)
        }
    }
    let mut bytes = header(64 << 20);
    bytes.extend([b' '; 100]);
    let mut stream = Claims { bytes, largest: 0 };
    assert!(matches!(
        read_frame(&mut stream, 64 << 20),
        Err(FrameError::Truncated { .. })
    ));
    assert!(
        stream.largest < 1 << 20,
        "offered a buffer of {} bytes",
        stream.largest
    );
}

#[test]
fn a_failing_or_interrupted_stream_is_told_apart() {
    struct Fails(Vec<io::ErrorKind>);
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0.pop().map_or(Ok(0), |kind| Err(kind.into()))
        }
    }
    let mut stream = Fails(vec![io::ErrorKind::Interrupted]);
    assert!(read_frame(&mut stream, 100).unwrap().is_none());
    let mut stream = Fails(vec![io::ErrorKind::ConnectionReset]);
    assert!(matches!(read_frame(&mut stream, 100), Err(FrameError::Io(_))));
}

fn any_frame() -> impl Strategy<Value = Frame> {
    (
        any::<u32>(),
        any::<u64>(),
        proptest::collection::vec(any::<u8>(), 0..200),
    )
        .prop_map(|(message_type, id, body)| Frame {
            message_type: MessageType(message_type),
            id,
            body,
        })
}

proptest! {
    #[test]
    fn frames_survive_any_cut_of_the_stream(
        frames in proptest::collection::vec(any_frame(), 0..8),
        cuts in proptest::collection::vec(1usize..64, 1..64),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|f| f.encode(MAX_GUEST_FRAME_BYTES).unwrap()).collect();
        let mut decoder = Decoder::new(MAX_GUEST_FRAME_BYTES);
        let mut got = Vec::new();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            rest = after;
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                got.push(frame);
            }
            if rest.is_empty() {
                break;
            }
        }
        decoder.finish().unwrap();
        prop_assert_eq!(&got, &frames);

        let mut stream = bytes.as_slice();
        let mut read = Vec::new();
        while let Some(frame) = read_frame(&mut stream, MAX_GUEST_FRAME_BYTES).unwrap() {
            read.push(frame);
        }
        prop_assert_eq!(&read, &frames);
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        frame::fuzz(&bytes);
    }

    #[test]
    fn no_body_breaks_the_messages(body in "[\\[\\]{}:,\"0-9a-zA-Z\\\\ ]{0,200}") {
        frame::fuzz(&frame::encode(MessageType(0x1010_0a01), 1, body.as_bytes(), MAX_GUEST_FRAME_BYTES).unwrap());
    }
}
