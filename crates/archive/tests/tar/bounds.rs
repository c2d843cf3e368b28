//! What of a stream costs memory or time, and what of its threads may fail.

use std::io::{self, Read, Write};

use cofferdam_archive::{Archive, Input, InputOptions, Limits};
use flate2::write::GzEncoder;

const BOTH: InputOptions = InputOptions {
    compressed_digest: true,
    archive_digest: true,
};

/// Bytes that do not get shorter: several chunks of them also when they are compressed.
fn content() -> Vec<u8> {
    (0..200_000_u32)
        .flat_map(|at| at.wrapping_mul(0x9e37_79b9).to_le_bytes())
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn input(bytes: Vec<u8>, options: InputOptions) -> io::Result<Input> {
    Input::new(io::Cursor::new(bytes), options)
}

fn to_end(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    input(bytes, InputOptions::default())?.read_to_end(&mut all)?;
    Ok(all)
}

#[test]
fn a_zstd_window_of_any_size_does_not_take_its_memory() {
    let encoded = |log| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.write_all(b"archive").unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(to_end(encoded(25)).unwrap(), b"archive");
    let error = to_end(encoded(26)).unwrap_err().to_string();
    assert!(error.contains("32 MiB") && error.contains("--long"), "{error}");
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let mebibyte = vec![0; 1 << 20];
    let bombs = [gzip(&mebibyte).repeat(20), zstd(&mebibyte).repeat(20)];
    for bomb in bombs {
        let mut limited = input(bomb.clone(), BOTH).unwrap().limited(3_000_000);
        let mut all = Vec::new();
        let error = limited.read_to_end(&mut all).unwrap_err().to_string();
        assert_eq!(all.len(), 3_000_000);
        assert!(error.contains("3000000 bytes"), "{error}");
        // Nor does reading to the end read to it.
        let limited = input(bomb.clone(), BOTH).unwrap().limited(3_000_000);
        assert!(limited.finish().is_err());
        let limits = Limits {
            archive_bytes: 3_000_000,
            ..Limits::default()
        };
        let archive = Archive::new(input(bomb, BOTH).unwrap(), limits);
        assert!(archive.finish().is_err());
    }
    // Exactly at it is within it.
    let exact = input(gzip(&mebibyte), BOTH).unwrap().limited(1 << 20);
    assert_eq!(exact.finish().unwrap().archive_bytes, 1 << 20);
}

#[test]
fn what_comes_after_the_end_is_an_error() {
    for compressed in [gzip(b"archive"), zstd(b"archive")] {
        assert_eq!(to_end(compressed.clone()).unwrap(), b"archive");
        assert!(to_end([&compressed[..], b"garbage!"].concat()).is_err());
    }
    // An empty member and a frame that decoders skip are no garbage.
    assert_eq!(
        to_end([gzip(b"ar"), gzip(b""), gzip(b"chive")].concat()).unwrap(),
        b"archive"
    );
    let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc";
    assert_eq!(
        to_end([skipped, &zstd(b"archive")[..]].concat()).unwrap(),
        b"archive"
    );
}

/// A source that ends as it is told to.
struct Ending(fn() -> io::Result<usize>);

impl Read for Ending {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        (self.0)()
    }
}

#[test]
fn a_source_that_fails_or_panics_is_no_end_of_the_archive() {
    let failing: fn() -> io::Result<usize> =
        || Err(io::Error::new(io::ErrorKind::TimedOut, "the cable is out"));
    let panicking: fn() -> io::Result<usize> = || panic!("on purpose");
    for (then, kind, words) in [
        (failing, io::ErrorKind::TimedOut, "the cable is out"),
        (panicking, io::ErrorKind::Other, "panic"),
    ] {
        for bytes in [content(), gzip(&content()), zstd(&content())] {
            // The first chunk is read before there is a thread.
            assert!(bytes.len() > 300_000);
            let half = io::Cursor::new(bytes[..300_000].to_vec());
            let mut started = Input::new(half.chain(Ending(then)), BOTH).unwrap();
            let error = started.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
