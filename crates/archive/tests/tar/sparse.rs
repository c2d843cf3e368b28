//! Sparse files of every version.

use cofferdam_archive::{ArchiveError, Kind, Limits, Segment};

use crate::{
    reading::{all, content, good},
    writer::{Header, Writer},
};

/// Writes a sparse file in one of the ways there are.
type Write = fn(&mut Writer, &[u8], u64, &[(u64, u64)], &[u8]);

const WAYS: [(&str, Write); 4] = [
    ("GNU", |w, name, size, map, data| {
        let _ = w.gnu_sparse(name, size, map, data);
    }),
    ("0.0", |w, name, size, map, data| {
        let _ = w.pax_sparse((0, 0), name, size, map, data);
    }),
    ("0.1", |w, name, size, map, data| {
        let _ = w.pax_sparse((0, 1), name, size, map, data);
    }),
    ("1.0", |w, name, size, map, data| {
        let _ = w.pax_sparse((1, 0), name, size, map, data);
    }),
];

fn archive(write: Write, size: u64, map: &[(u64, u64)], data: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    write(&mut writer, b"sparse", size, map, data);
    writer.entry(&Header::default(), b"next").finish()
}

#[test]
fn every_way_of_writing_holes_is_the_same_file() {
    // Enough pieces for a header, two more blocks and a map of several blocks.
    let map: Vec<(u64, u64)> = (0..40).map(|n| (n * 1000, 7)).chain([(50_000, 0)]).collect();
    let data: Vec<u8> = (0..280_u32).map(|n| n as u8).collect();
    for (name, write) in WAYS {
        for map in [&map[..], &map[..4], &map[..5], &map[..25], &[(50_000, 0)], &[]] {
            let stored: u64 = map.iter().map(|(_, length)| length).sum();
            let data = &data[..usize::try_from(stored).unwrap()];
            let entries = good(&archive(write, 50_000, map, data));
            assert_eq!(entries[0].0.path, b"sparse", "{name}");
            assert_eq!(entries[1].1, b"next", "{name}, {} pieces", map.len());
            let Kind::File {
                size: 50_000,
                segments,
            } = &entries[0].0.kind
            else {
                panic!("{name}: {:?}", entries[0].0.kind)
            };
            // Without a map there is nothing in 0.0's records that says sparse but its size.
            let expected: Vec<Segment> = map
                .iter()
                .filter(|(_, length)| *length > 0)
                .map(|&(offset, length)| Segment { offset, length })
                .collect();
            assert_eq!(segments.as_deref(), Some(&expected[..]), "{name}");
            assert_eq!(content(&entries[0]).len(), 50_000);
        }
    }
}

#[test]
fn maps_that_lie_are_refused_in_every_version() {
    let limits = Limits {
        segments: 30,
        ..Limits::default()
    };
    let many: Vec<(u64, u64)> = (0..200).map(|n| (n, 0)).collect();
    for (name, write) in WAYS {
        for (map, size, data) in [
            (&[(0, 10), (5, 10)][..], 100, 20),
            (&[(50, 10), (0, 10)], 100, 20),
            (&[(95, 10)], 100, 10),
            (&[(i64::MAX as u64, 10)], 100, 10),
            (&[(0, 10)], 100, 11),
            (&[(0, 10)], 100, 9),
            (&[(0, 10)], 1 << 60, 10),
            (&many, 300, 0),
        ] {
            let bytes = archive(write, size, map, &vec![b'x'; data]);
            let error = all(&bytes[..], limits).1.unwrap_err();
            assert!(
                matches!(error, ArchiveError::Sparse { .. } | ArchiveError::Limit { .. }),
                "{name}: {error}"
            );
        }
    }
}

#[test]
fn a_map_before_the_data_ends_where_its_file_does() {
    for text in [
        &b"3\n0\n1\n"[..],
        b"x\n",
        b"-1\n",
        b"99999999999999999999999\n",
        b"1\n0\n\n",
        b"2000000000\n",
    ] {
        let mut writer = Writer::default();
        writer
            .extended(
                b'x',
                &[
                    (b"GNU.sparse.major", b"1"),
                    (b"GNU.sparse.minor", b"0"),
                    (b"GNU.sparse.realsize", b"10"),
                ],
            )
            .entry(&Header::default(), text);
        let (_, end) = all(&writer.finish()[..], Limits::default());
        assert!(end.is_err(), "{}", text.escape_ascii());
    }
}

#[test]
fn sparse_files_of_unknown_versions_are_not_taken_for_whole_ones() {
    let mut writer = Writer::default();
    writer
        .extended(
            b'x',
            &[(b"GNU.sparse.major", b"2"), (b"GNU.sparse.realsize", b"10")],
        )
        .entry(&Header::default(), b"data");
    let error = all(&writer.finish()[..], Limits::default()).1.unwrap_err();
    assert!(matches!(error, ArchiveError::Sparse { .. }), "{error}");
}
