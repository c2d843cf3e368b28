//! Any bytes as a tar stream: entries and data are read to the end or to an error, and never more than was stated.

#![no_main]

use cofferdam_archive::{Archive, Kind, Limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        entries: 1000,
        segments: 1000,
        ..Limits::default()
    };
    let mut archive = Archive::new(bytes, limits);
    while let Ok(Some(entry)) = archive.next_entry() {
        assert!(!entry.path.is_empty() && entry.path.len() <= limits.path_bytes);
        assert!(entry.mode <= 0o7777);
        let stated = match &entry.kind {
            Kind::File { size, segments: None } => *size,
            Kind::File {
                size,
                segments: Some(segments),
            } => {
                let mut end = 0;
                for segment in segments {
                    assert!(segment.offset >= end);
                    end = segment.offset + segment.length;
                }
                assert!(end <= *size);
                segments.iter().map(|segment| segment.length).sum()
            }
            _ => u64::MAX,
        };
        let mut read = 0;
        while let Ok(data) = archive.data() {
            let length = data.len();
            if length == 0 {
                break;
            }
            archive.consume(length);
            read += length as u64;
        }
        assert!(read <= stated);
    }
    let _ = archive.finish();
});
