//! What each header format says, and whose word counts.

use cofferdam_archive::{ArchiveError, Kind, Limits, Time};

use crate::{
    reading::{all, content, good},
    writer::{GNU, Header, USTAR, V7, Writer, checksum},
};

fn failing(bytes: &[u8]) -> ArchiveError {
    all(bytes, Limits::default()).1.unwrap_err()
}

#[test]
fn the_end_is_where_other_readers_have_it() {
    let entry = Writer::default().entry(&Header::default(), b"data").bytes.clone();
    let zeros = [0; 1536];
    for end in [&zeros[..0], &zeros[..512], &zeros[..1024], &zeros[..]] {
        assert_eq!(good(&[&entry[..], end].concat()).len(), 1);
        assert_eq!(good(end).len(), 0);
    }
    // What is after two blocks of zeros means nothing; after one it would be lost.
    assert_eq!(good(&[&entry[..], &zeros[..1024], &entry[..]].concat()).len(), 1);
    let error = failing(&[&entry[..], &zeros[..512], &entry[..]].concat());
    assert!(
        matches!(&error, ArchiveError::LoneZeroBlock { place } if place.offset == 1536),
        "{error}"
    );
    // The last entry's padding may be missing, its data may not.
    assert_eq!(good(&entry[..516])[0].1, b"data");
    let error = failing(&entry[..515]).to_string();
    assert!(
        error.contains("byte 515") && error.contains("\"file\""),
        "{error}"
    );
    let error = failing(&entry[..300]);
    assert!(
        matches!(error, ArchiveError::Truncated { part: "a header", .. }),
        "{error}"
    );
}

#[test]
fn paths_are_put_together_as_the_layout_has_them() {
    let path = |header: &Header<'_>| {
        good(Writer::default().header(header).finish().as_slice())[0]
            .0
            .path
            .clone()
    };
    let name = [b'n'; 100];
    let own = Header {
        name: &name,
        prefix: b"some/prefix",
        ..Header::default()
    };
    assert_eq!(path(&own), [b"some/prefix/", &name[..]].concat());
    assert_eq!(
        path(&Header {
            magic: V7,
            ..own.clone()
        }),
        name
    );
    // Go's writer before 1.8 put a prefix where GNU has times.
    assert_eq!(
        path(&Header {
            magic: GNU,
            ..own.clone()
        }),
        [b"some/prefix/", &name[..]].concat()
    );
    let times = Header {
        magic: GNU,
        prefix: b"00000000000\x0000000000000\0",
        ..own.clone()
    };
    assert_eq!(path(&times), name);
    // star's prefix is shorter.
    let mut block = own.block();
    block[476..480].copy_from_slice(b"1234");
    block[508..512].copy_from_slice(b"tar\0");
    checksum(&mut block);
    let mut star = Writer::default();
    star.bytes.extend_from_slice(&block);
    assert_eq!(
        good(&star.finish())[0].0.path,
        [b"some/prefix/", &name[..]].concat()
    );
}

#[test]
fn types_are_told_by_their_flag() {
    let target = Header {
        link: b"target",
        ..Header::default()
    };
    let kind = |header: &Header<'_>| good(&Writer::default().header(header).finish())[0].0.kind.clone();
    let file = Kind::File {
        size: 0,
        segments: None,
    };
    for typeflag in [b'0', 0, b'7'] {
        assert_eq!(
            kind(&Header {
                typeflag,
                ..target.clone()
            }),
            file
        );
        let directory = Header {
            name: b"directory/",
            typeflag,
            magic: V7,
            ..Header::default()
        };
        assert_eq!(kind(&directory), Kind::Directory);
    }
    let link = b"target".to_vec();
    assert_eq!(
        kind(&Header {
            typeflag: b'1',
            ..target.clone()
        }),
        Kind::HardLink { target: link.clone() }
    );
    assert_eq!(
        kind(&Header {
            typeflag: b'2',
            ..target.clone()
        }),
        Kind::Symlink { target: link }
    );
    assert_eq!(
        kind(&Header {
            typeflag: b'5',
            ..target.clone()
        }),
        Kind::Directory
    );
    assert_eq!(
        kind(&Header {
            typeflag: b'6',
            ..target.clone()
        }),
        Kind::Fifo
    );
    let device = Header {
        device: (10, 0x00ff_ffff),
        ..target.clone()
    };
    let (major, minor) = (10, 0x00ff_ffff);
    assert_eq!(
        kind(&Header {
            typeflag: b'3',
            ..device.clone()
        }),
        Kind::CharacterDevice { major, minor }
    );
    assert_eq!(
        kind(&Header {
            typeflag: b'4',
            ..device.clone()
        }),
        Kind::BlockDevice { major, minor }
    );
    for typeflag in [b'8', b'V', b'M', b'D', b'X', b'S', 0xff] {
        let error = failing(
            &Writer::default()
                .header(&Header {
                    typeflag,
                    ..target.clone()
                })
                .finish(),
        );
        assert!(
            matches!(&error, ArchiveError::Type { typeflag: t, .. } if *t == typeflag),
            "{error}"
        );
        assert!(error.to_string().contains("\"file\""), "{error}");
    }
    let error = failing(
        &Writer::default()
            .entry(
                &Header {
                    name: b"d/",
                    ..target.clone()
                },
                b"x",
            )
            .finish(),
    );
    assert!(matches!(error, ArchiveError::Path { .. }), "{error}");
    for typeflag in [b'1', b'2'] {
        let error = failing(
            &Writer::default()
                .header(&Header {
                    typeflag,
                    ..Header::default()
                })
                .finish(),
        );
        assert!(matches!(error, ArchiveError::Path { .. }), "{error}");
    }
}

#[test]
fn numbers_beyond_octal_are_read_and_those_beyond_linux_refused() {
    let header = Header {
        uid: 0x1234_5678,
        gid: 0x00ff_ffff,
        mtime: -12,
        mode: 0o104_755,
        ..Header::default()
    };
    let entry = good(&Writer::default().header(&header).finish())[0].0.clone();
    assert_eq!(
        (entry.uid, entry.gid, entry.mode),
        (0x1234_5678, 0x00ff_ffff, 0o4755)
    );
    assert_eq!(
        entry.mtime,
        Time {
            seconds: -12,
            nanoseconds: 0
        }
    );
    for bad in [
        Header {
            uid: -1,
            ..Header::default()
        },
        Header {
            gid: 1 << 32,
            ..Header::default()
        },
        Header {
            typeflag: b'3',
            device: (1 << 32, 0),
            ..Header::default()
        },
    ] {
        let error = failing(&Writer::default().header(&bad).finish());
        assert!(matches!(error, ArchiveError::Range { .. }), "{error}");
    }
    let error = failing(
        &Writer::default()
            .header(&Header {
                size: 1 << 50,
                ..Header::default()
            })
            .finish(),
    );
    assert!(matches!(error, ArchiveError::Limit { .. }), "{error}");
}

#[test]
fn extended_headers_count_more_than_headers_and_local_more_than_global() {
    let header = Header {
        uid: 1,
        gid: 2,
        mtime: 3,
        ..Header::default()
    };
    let mut writer = Writer::default();
    writer
        .extended(
            b'g',
            &[
                (b"comment", b"0123"),
                (b"uid", b"100000"),
                (b"gid", b"7"),
                (b"mtime", b"9.5"),
            ],
        )
        .entry(&header, b"one")
        .extended(
            b'x',
            &[
                (b"path", "ü".as_bytes()),
                (b"size", b"3"),
                (b"gid", b"4294967294"),
                (b"uid", b""),
                (b"mtime", b"-1.25"),
                (b"SCHILY.xattr.user.a", b"\n\0=\xff"),
                (b"hdrcharset", b"BINARY"),
            ],
        )
        .header(&Header {
            size: 77,
            ..header.clone()
        })
        .data(b"two")
        .entry(&header, b"three");
    let entries = good(&writer.finish());
    let facts: Vec<_> = entries
        .iter()
        .map(|(e, data)| {
            (
                &e.path[..],
                e.uid,
                e.gid,
                e.mtime.seconds,
                e.mtime.nanoseconds,
                &data[..],
            )
        })
        .collect();
    assert_eq!(
        facts,
        [
            (&b"file"[..], 100_000, 7, 9, 500_000_000, &b"one"[..]),
            ("ü".as_bytes(), 1, 4_294_967_294, -2, 750_000_000, b"two"),
            (b"file", 100_000, 7, 9, 500_000_000, b"three"),
        ]
    );
    assert_eq!(entries[1].0.xattrs.len(), 1);
    assert_eq!(entries[1].0.xattrs[0].value, b"\n\0=\xff");
    for (keyword, value) in [
        (b"uid", &b"4294967295"[..]),
        (b"gid", b"-1"),
        (b"uid", b"99999999999"),
    ] {
        let mut writer = Writer::default();
        let error = failing(
            &writer
                .extended(b'x', &[(keyword, value)])
                .entry(&header, b"")
                .finish(),
        );
        assert!(matches!(error, ArchiveError::Range { .. }), "{error}");
    }
}

#[test]
fn long_names_are_those_of_gnu_tar() {
    let (path, link) = ([b'p'; 300], [b'l'; 400]);
    let mut writer = Writer::default();
    writer
        .long(b'L', &path)
        .long(b'K', &link)
        .header(&Header {
            typeflag: b'2',
            magic: GNU,
            ..Header::default()
        })
        .entry(&Header::default(), b"next");
    let entries = good(&writer.finish());
    assert_eq!(entries[0].0.path, path);
    assert_eq!(
        entries[0].0.kind,
        Kind::Symlink {
            target: link.to_vec()
        }
    );
    assert_eq!(entries[1].0.path, b"file");
    let stray = failing(&Writer::default().long(b'L', b"x").finish());
    assert!(matches!(stray, ArchiveError::Stray { .. }), "{stray}");
}

#[test]
fn a_hard_link_has_data_only_where_an_extended_header_says_so() {
    let link = Header {
        name: b"link",
        typeflag: b'1',
        link: b"file",
        size: 4,
        ..Header::default()
    };
    let mut writer = Writer::default();
    writer
        .entry(&Header::default(), b"data")
        .header(&link)
        .entry(&Header::default(), b"more");
    let entries = good(&writer.finish());
    assert_eq!(
        (entries.len(), &entries[1].1[..], content(&entries[2])),
        (3, &b""[..], b"more".to_vec())
    );
    let mut writer = Writer::default();
    writer
        .extended(b'x', &[(b"size", b"4")])
        .entry(&link, b"data")
        .entry(
            &Header {
                magic: USTAR,
                ..Header::default()
            },
            b"more",
        );
    let entries = good(&writer.finish());
    assert_eq!(
        (&entries[0].1[..], content(&entries[1])),
        (&b"data"[..], b"more".to_vec())
    );
}

#[test]
fn signed_checksums_are_taken_and_wrong_ones_named() {
    let mut block = Header {
        name: "\u{fc}".as_bytes(),
        ..Header::default()
    }
    .block();
    let unsigned: u32 = block.iter().map(|b| u32::from(*b)).sum::<u32>()
        - block[148..156].iter().map(|b| u32::from(*b)).sum::<u32>()
        + 8 * 32;
    block[148..155].copy_from_slice(format!("{:06o}\0", unsigned - 512).as_bytes());
    assert_eq!(good(&block)[0].0.path, "\u{fc}".as_bytes());
    block[148..155].copy_from_slice(format!("{:06o}\0", unsigned - 511).as_bytes());
    let mut writer = Writer::default();
    writer.entry(
        &Header {
            name: b"before",
            ..Header::default()
        },
        b"",
    );
    writer.bytes.extend_from_slice(&block);
    let error = failing(&writer.bytes).to_string();
    assert!(error.contains("byte 512") && error.contains("before"), "{error}");
}
