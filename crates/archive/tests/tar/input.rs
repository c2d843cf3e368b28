//! What comes before the archive's bytes: compression, digests, threads.

use std::{
    io::{self, BufRead, Read, Write},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cofferdam_archive::{Archive, ArchiveError, Compression, Digest, Input, InputOptions, Limits};

const BOTH: InputOptions = InputOptions {
    compressed_digest: true,
    archive_digest: true,
};

/// Bytes through a program.
fn through(words: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    assert!(output.status.success(), "{words:?}");
    output.stdout
}

fn content() -> Vec<u8> {
    (0..3_000_000_u32)
        .map(|number| (number ^ (number >> 7)) as u8)
        .collect()
}

fn read(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut input = Input::new(io::Cursor::new(bytes), BOTH)?;
    let mut content = Vec::new();
    input.read_to_end(&mut content)?;
    Ok(content)
}

#[test]
fn every_compression_gives_the_archive_and_the_digests_of_both() {
    let plain = content();
    let (first, second) = plain.split_at(1_000_001);
    let members = |words: &[&str]| [through(words, first), through(words, second)].concat();
    for (bytes, compression) in [
        (plain.clone(), Compression::None),
        (members(&["gzip", "-c"]), Compression::Gzip),
        (members(&["zstd", "-q", "-c"]), Compression::Zstd),
        (through(&["zstd", "-q", "-c", "-19"], &plain), Compression::Zstd),
    ] {
        let mut input = Input::new(io::Cursor::new(bytes.clone()), BOTH).unwrap();
        assert_eq!(input.compression(), compression);
        // Half is read by whoever takes the archive, the rest by `finish`.
        let mut half = vec![0; plain.len() / 2];
        input.read_exact(&mut half).unwrap();
        assert!(half == plain[..half.len()]);
        let digests = input.finish().unwrap();
        assert_eq!(digests.compressed, Some(Digest::of(&bytes)), "{compression}");
        assert_eq!(digests.archive, Some(Digest::of(&plain)), "{compression}");
        assert_eq!(digests.compressed_bytes, bytes.len() as u64);
        assert_eq!(digests.archive_bytes, plain.len() as u64);
        assert!(read(bytes).unwrap() == plain);
    }
}

#[test]
fn nothing_is_an_archive_of_no_bytes() {
    assert_eq!(read(Vec::new()).unwrap(), b"");
}

#[test]
fn what_is_damaged_is_an_error_and_never_less_than_all() {
    let plain = content();
    for words in [&["gzip", "-c"][..], &["zstd", "-q", "-c", "--check"]] {
        let whole = through(words, &plain);
        for length in [5, whole.len() / 3, whole.len() - 1] {
            assert!(
                read(whole[..length].to_vec()).is_err(),
                "{words:?}, {length} bytes"
            );
        }
        for at in [whole.len() / 2, whole.len() - 3] {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            assert!(read(flipped).is_err(), "{words:?}, byte {at}");
        }
    }
}

#[test]
fn other_compressions_are_named_and_not_taken_for_archives() {
    for (bytes, name) in [
        (&b"\xFD7zXZ\0 and more"[..], "xz"),
        (b"BZh91AY&SY and more", "bzip2"),
        (b"\x04\x22\x4D\x18 and more", "lz4"),
    ] {
        let error = read(bytes.to_vec()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// Endless bytes, and how many were asked for.
struct Endless(Arc<AtomicU64>);

impl Read for Endless {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        bytes.fill(b'x');
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }
}

#[test]
fn whoever_stops_reading_stops_the_threads_and_few_bytes_are_read_ahead() {
    let asked = Arc::new(AtomicU64::new(0));
    let mut input = Input::new(Endless(Arc::clone(&asked)), BOTH).unwrap();
    assert!(!input.fill_buf().unwrap().is_empty());
    std::thread::sleep(Duration::from_millis(50));
    assert!(asked.load(Ordering::Relaxed) < 8 << 20, "{asked:?}");
    drop(input);
    // The source is given back when its thread ends: then nobody else has the counter.
    let start = Instant::now();
    while Arc::strong_count(&asked) > 1 {
        assert!(start.elapsed() < Duration::from_secs(10), "a thread goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Some bytes, then an error.
struct Failing(io::Cursor<Vec<u8>>);

impl Read for Failing {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.0.read(bytes)? {
            0 => Err(io::Error::other("the line was cut")),
            length => Ok(length),
        }
    }
}

#[test]
fn the_sources_own_error_reaches_whoever_reads() {
    for bytes in [content(), through(&["gzip", "-c"], &content())] {
        let half = io::Cursor::new(bytes[..bytes.len() / 2].to_vec());
        let read = Input::new(Failing(half), BOTH).and_then(|mut input| input.read_to_end(&mut Vec::new()));
        let error = read.unwrap_err();
        assert!(error.to_string().contains("the line was cut"), "{error}");
    }
}

#[test]
fn a_bomb_is_stopped_by_the_limit_of_the_archive() {
    let bomb = through(&["gzip", "-9", "-c"], &vec![0; 64 << 20]);
    assert!(bomb.len() < 200_000);
    let limits = Limits {
        archive_bytes: 1 << 20,
        ..Limits::default()
    };
    let mut archive = Archive::new(Input::new(io::Cursor::new(bomb), BOTH).unwrap(), limits);
    assert!(archive.next_entry().unwrap().is_none());
    let error = archive.finish().unwrap_err();
    assert!(matches!(error, ArchiveError::Limit { .. }), "{error}");
}
