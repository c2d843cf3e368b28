//! Archives that were damaged or made to harm.

use std::{
    io::{self, BufRead, Read},
    time::{Duration, Instant},
};

use cofferdam_archive::{Archive, ArchiveError, Kind, Limits};
use proptest::prelude::*;

use crate::{
    reading::{all, good},
    writer::{GNU, Header, Writer, record},
};

/// An archive with one of everything, small enough to damage everywhere.
fn one_of_everything() -> Vec<u8> {
    let mut writer = Writer::default();
    writer
        .extended(b'g', &[(b"comment", b"x"), (b"uid", b"3")])
        .entry(&Header::default(), b"data")
        .extended(
            b'x',
            &[
                (b"path", b"a/b"),
                (b"mtime", b"1.5"),
                (b"SCHILY.xattr.user.a", b"v"),
            ],
        )
        .entry(&Header::default(), &[b'y'; 700])
        .long(b'L', &[b'p'; 120])
        .header(&Header {
            typeflag: b'5',
            magic: GNU,
            ..Header::default()
        })
        .gnu_sparse(
            b"s",
            5000,
            &[(0, 10), (100, 5), (200, 5), (300, 5), (5000, 0)],
            &[b's'; 25],
        )
        .pax_sparse((1, 0), b"s1", 5000, &[(10, 10), (5000, 0)], &[b't'; 10])
        .header(&Header {
            typeflag: b'3',
            device: (1, 3),
            ..Header::default()
        });
    writer.finish()
}

/// Reads on whatever happens, and checks that no file gives more than it says.
fn holds_its_word(bytes: &[u8]) -> Result<(), TestCaseError> {
    let (entries, end) = all(bytes, Limits::default());
    let last = entries.len().checked_sub(1);
    for (index, (entry, data)) in entries.iter().enumerate() {
        let stored = match &entry.kind {
            Kind::File { size, segments: None } => *size,
            Kind::File {
                segments: Some(segments),
                ..
            } => segments.iter().map(|s| s.length).sum(),
            // A size in an extended header.
            Kind::HardLink { .. } => continue,
            _ => 0,
        };
        let got = data.len() as u64;
        prop_assert!(got == stored || got < stored && end.is_err() && Some(index) == last);
    }
    Ok(())
}

#[test]
fn an_archive_cut_off_anywhere_gives_no_panic_and_no_more_than_it_says() {
    let bytes = one_of_everything();
    assert_eq!(good(&bytes).len(), 6);
    // Odd, so that it meets every place in a block.
    for length in (0..bytes.len()).step_by(5) {
        holds_its_word(&bytes[..length]).unwrap();
    }
}

#[test]
fn a_flipped_bit_anywhere_gives_no_panic_and_no_more_than_it_says() {
    let mut bytes = one_of_everything();
    for place in (0..bytes.len()).step_by(3) {
        // Another one in each third byte: all of them would take a debug build minutes.
        let bit = 1 << (place % 8);
        bytes[place] ^= bit;
        holds_its_word(&bytes).unwrap();
        bytes[place] ^= bit;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Checksums are made right again, or nothing but them would be tested.
    #[test]
    fn headers_of_any_bytes_are_answered(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..30),
    ) {
        let mut bytes = one_of_everything();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
            let block = place / 512 * 512;
            let block: &mut [u8; 512] = (&mut bytes[block..block + 512]).try_into().unwrap();
            if block[257..262] == *b"ustar" {
                crate::writer::checksum(block);
            }
        }
        holds_its_word(&bytes)?;
    }

    #[test]
    fn extended_headers_of_any_bytes_are_answered(
        records in prop::collection::vec((
            prop::sample::select(vec![
                "path", "linkpath", "size", "uid", "mtime", "SCHILY.xattr.", "LIBARCHIVE.xattr.a", "GNU.sparse.major",
                "GNU.sparse.map", "GNU.sparse.offset", "GNU.sparse.numbytes", "GNU.sparse.realsize", "GNU.sparse.name",
            ]),
            prop_oneof![prop::collection::vec(any::<u8>(), 0..20), "-?[0-9,.]{0,12}".prop_map(String::into_bytes)],
        ), 0..6),
        global: bool,
    ) {
        let records: Vec<(&[u8], &[u8])> = records.iter().map(|(k, v)| (k.as_bytes(), &v[..])).collect();
        let mut writer = Writer::default();
        let typeflag = if global { b'g' } else { b'x' };
        writer.extended(typeflag, &records).entry(&Header::default(), &[b'1'; 600]);
        holds_its_word(&writer.finish())?;
    }
}

#[test]
fn nothing_is_held_before_a_limit_is_checked() {
    let small = Limits {
        entries: 2,
        path_bytes: 200,
        extended_bytes: 1000,
        segments: 4,
        archive_bytes: 100_000,
        file_bytes: 10_000,
    };
    let mut cases: Vec<(&str, Vec<u8>)> = Vec::new();
    let file = Header::default();
    cases.push((
        "entries",
        Writer::default()
            .header(&file)
            .header(&file)
            .header(&file)
            .finish(),
    ));
    cases.push((
        "path",
        Writer::default().long(b'L', &[b'p'; 201]).header(&file).finish(),
    ));
    let symlink = Header {
        typeflag: b'2',
        ..Header::default()
    };
    cases.push((
        "path",
        Writer::default()
            .long(b'K', &[b'p'; 201])
            .header(&symlink)
            .finish(),
    ));
    // The headers' data is not even there.
    for typeflag in [b'x', b'g', b'L', b'K'] {
        let header = Header {
            typeflag,
            size: 1 << 40,
            ..Header::default()
        };
        cases.push(("extended", Writer::default().header(&header).bytes.clone()));
    }
    let half = [b'x'; 600];
    let twice = [(&b"comment"[..], &half[..])];
    cases.push((
        "extended",
        Writer::default()
            .extended(b'x', &twice)
            .extended(b'x', &twice)
            .bytes
            .clone(),
    ));
    cases.push((
        "file",
        Writer::default()
            .header(&Header {
                size: 10_001,
                ..Header::default()
            })
            .bytes
            .clone(),
    ));
    for (what, bytes) in cases {
        let error = all(&bytes[..], small).1.unwrap_err();
        assert!(matches!(error, ArchiveError::Limit { .. }), "{what}: {error}");
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
    let endless = Zeros::after(Writer::default().entry(&file, b"x").finish());
    let error = Archive::new(endless, small).finish().map(|_| ()).unwrap_err();
    assert!(matches!(error, ArchiveError::Limit { .. }), "{error}");
}

#[test]
fn a_megabyte_of_attributes_takes_no_more_time_than_it_is_long() {
    let mut records = Vec::new();
    for n in (0..39_000_u32).rev() {
        records.extend_from_slice(&record(format!("LIBARCHIVE.xattr.{n}").as_bytes(), b""));
    }
    assert!(records.len() <= 1 << 20, "{}", records.len());
    let mut writer = Writer::default();
    let header = Header {
        typeflag: b'x',
        ..Header::default()
    };
    let bytes = writer
        .entry(&header, &records)
        .entry(&Header::default(), b"")
        .finish();
    let started = Instant::now();
    assert_eq!(good(&bytes)[0].0.xattrs.len(), 39_000);
    // A debug build on a busy machine takes a tenth of a second; comparing all with all took some ten.
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn after_an_error_there_is_no_reading_on() {
    let bytes = Writer::default()
        .header(&Header {
            typeflag: b'!',
            ..Header::default()
        })
        .finish();
    let mut archive = Archive::new(&bytes[..], Limits::default());
    assert!(matches!(archive.next_entry(), Err(ArchiveError::Type { .. })));
    assert!(matches!(archive.next_entry(), Err(ArchiveError::Failed { .. })));
}

#[test]
fn signals_do_not_end_an_archive_and_errors_keep_their_cause() {
    struct Flaky(Vec<u8>, usize, bool);
    impl Read for Flaky {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            unreachable!("it is read through its buffer")
        }
    }
    impl BufRead for Flaky {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            if !std::mem::replace(&mut self.2, true) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match self.1 {
                700.. => Err(io::Error::other("the cable is out")),
                at => Ok(&self.0[at..at + 100]),
            }
        }
        fn consume(&mut self, length: usize) {
            self.1 += length;
            self.2 = false;
        }
    }
    let bytes = Writer::default()
        .entry(&Header::default(), &[b'x'; 1000])
        .finish();
    let (entries, end) = all(Flaky(bytes, 0, false), Limits::default());
    assert_eq!(entries[0].1.len(), 200);
    let error = end.unwrap_err();
    assert!(matches!(error, ArchiveError::Read { .. }));
    assert!(
        error.to_string().contains("byte 712") && error.to_string().contains("the cable is out"),
        "{error}"
    );
}

/// Some bytes, then zeros without end.
struct Zeros {
    bytes: Vec<u8>,
    used: usize,
}

impl Zeros {
    fn after(bytes: Vec<u8>) -> Self {
        Self { bytes, used: 0 }
    }
}

impl Read for Zeros {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        unreachable!("it is read through its buffer")
    }
}

impl BufRead for Zeros {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self
            .bytes
            .get(self.used..)
            .filter(|rest| !rest.is_empty())
            .unwrap_or(&[0; 4096]))
    }
    fn consume(&mut self, length: usize) {
        self.used += length;
    }
}
