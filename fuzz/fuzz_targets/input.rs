//! Any bytes as a compressed archive: threads end, digests are of everything, limits hold.

#![no_main]

use std::io::Cursor;

use cofferdam_archive::{Archive, Digest, Input, InputOptions, Limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let options = InputOptions {
        compressed_digest: true,
        archive_digest: true,
    };
    let Ok(input) = Input::new(Cursor::new(bytes.to_vec()), options) else {
        return;
    };
    let limits = Limits {
        archive_bytes: 4 << 20,
        entries: 1000,
        ..Limits::default()
    };
    let mut archive = Archive::new(input, limits);
    while let Ok(Some(_)) = archive.next_entry() {}
    if let Ok(input) = archive.finish()
        && let Ok(digests) = input.finish()
    {
        assert_eq!(digests.compressed, Some(Digest::of(bytes)));
        assert_eq!(digests.compressed_bytes, bytes.len() as u64);
    }
});
