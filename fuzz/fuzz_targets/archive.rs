//! Any bytes as a tar stream: entries and data are read to the end or to an error, never more than was stated, and the
//! same however the stream is cut into pieces.

#![no_main]

use std::io::{BufRead, BufReader};

use cofferdam_archive::{Archive, Entry, Kind, Limits};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    entries: 1000,
    path_bytes: 4096,
    extended_bytes: 1 << 20,
    segments: 1000,
    archive_bytes: 1 << 30,
    file_bytes: 1 << 44,
};

/// Every entry with the length of its data, and how the reading ended.
fn read(input: impl BufRead) -> (Vec<(Entry, u64)>, String) {
    let mut archive = Archive::new(input, LIMITS);
    let mut entries = Vec::new();
    let end = loop {
        let entry = match archive.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break "the end".to_owned(),
            Err(error) => break error.to_string(),
        };
        let mut length = 0;
        let failed = loop {
            match archive.data() {
                Ok([]) => break None,
                Ok(data) => {
                    let taken = data.len();
                    archive.consume(taken);
                    length += taken as u64;
                }
                Err(error) => break Some(error.to_string()),
            }
        };
        check(&entry, length, failed.is_some());
        entries.push((entry, length));
        if let Some(error) = failed {
            break error;
        }
    };
    let _ = archive.finish();
    (entries, end)
}

fn check(entry: &Entry, read: u64, failed: bool) {
    assert!(!entry.path.is_empty() && entry.path.len() <= LIMITS.path_bytes);
    assert!(entry.mode <= 0o7777 && entry.mtime.nanoseconds < 1_000_000_000);
    assert!(entry.xattrs.is_sorted_by(|a, b| a.name < b.name));
    let stated = match &entry.kind {
        Kind::File { size, segments: None } => *size,
        Kind::File {
            size,
            segments: Some(segments),
        } => {
            let mut end = 0;
            for segment in segments {
                assert!(segment.offset >= end && segment.length > 0);
                end = segment.offset + segment.length;
            }
            assert!(end <= *size && segments.len() <= LIMITS.segments);
            segments.iter().map(|segment| segment.length).sum()
        }
        // An extended header may give it data.
        Kind::HardLink { .. } => return,
        _ => 0,
    };
    assert!(if failed { read < stated } else { read == stated });
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes);
    assert_eq!(whole, read(BufReader::with_capacity(100, bytes)));
    read(&cofferdam_fuzz::with_checksums(bytes)[..]);
});
