//! What another writer put in comes out.

use cofferdam_archive::{Kind, Time};
use proptest::prelude::*;

use crate::{reading::good, writer::Writer};

/// What is put in.
#[derive(Debug, Clone)]
struct Wanted {
    path: String,
    kind: Kind,
    data: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: u32,
}

fn paths() -> impl Strategy<Value = String> {
    let name = prop_oneof!["[a-z]{1,8}", "[a-zà-ÿ .]{90,130}", "é{1,60}"];
    // Not a directory's mark, and not what writers refuse.
    prop::collection::vec(name.prop_map(|name| format!("x{name}x")), 1..4).prop_map(|names| names.join("/"))
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let kind = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..1500).prop_map(|data| {
            (Kind::File { size: data.len() as u64, segments: None }, data)
        }),
        1 => paths().prop_map(|target| (Kind::HardLink { target: target.into_bytes() }, Vec::new())),
        1 => paths().prop_map(|target| (Kind::Symlink { target: target.into_bytes() }, Vec::new())),
        1 => Just((Kind::Directory, Vec::new())),
        1 => Just((Kind::Fifo, Vec::new())),
        1 => (0..1_u32 << 21, 0..1_u32 << 21).prop_map(|(major, minor)| {
            (Kind::CharacterDevice { major, minor }, Vec::new())
        }),
        1 => (0..1_u32 << 21, 0..1_u32 << 21).prop_map(|(major, minor)| {
            (Kind::BlockDevice { major, minor }, Vec::new())
        }),
    ];
    (
        paths(),
        kind,
        0..0o10_000_u32,
        0..u32::MAX,
        0..u32::MAX,
        any::<u32>(),
    )
        .prop_map(|(path, (kind, data), mode, uid, gid, mtime)| Wanted {
            path,
            kind,
            data,
            mode,
            uid,
            gid,
            mtime,
        })
}

fn append(builder: &mut tar::Builder<Vec<u8>>, wanted: &Wanted) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(wanted.mode);
    header.set_uid(wanted.uid.into());
    header.set_gid(wanted.gid.into());
    header.set_mtime(wanted.mtime.into());
    header.set_size(wanted.data.len() as u64);
    header.set_entry_type(match &wanted.kind {
        Kind::File { .. } => tar::EntryType::Regular,
        Kind::HardLink { .. } => tar::EntryType::Link,
        Kind::Symlink { .. } => tar::EntryType::Symlink,
        Kind::Directory => tar::EntryType::Directory,
        Kind::CharacterDevice { .. } => tar::EntryType::Char,
        Kind::BlockDevice { .. } => tar::EntryType::Block,
        Kind::Fifo => tar::EntryType::Fifo,
    });
    match &wanted.kind {
        Kind::CharacterDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            header.set_device_major(*major).unwrap();
            header.set_device_minor(*minor).unwrap();
            builder
                .append_data(&mut header, &wanted.path, std::io::empty())
                .unwrap();
        }
        Kind::HardLink { target } | Kind::Symlink { target } => {
            let target = str::from_utf8(target).unwrap();
            builder.append_link(&mut header, &wanted.path, target).unwrap();
        }
        _ => builder
            .append_data(&mut header, &wanted.path, &wanted.data[..])
            .unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn entries_of_the_tar_crate_come_out_as_they_went_in(wanted in prop::collection::vec(wanted(), 0..12)) {
        let mut builder = tar::Builder::new(Vec::new());
        for wanted in &wanted {
            append(&mut builder, wanted);
        }
        let entries = good(&builder.into_inner().unwrap());
        prop_assert_eq!(entries.len(), wanted.len());
        for ((entry, data), wanted) in entries.iter().zip(&wanted) {
            prop_assert_eq!(&entry.path, wanted.path.as_bytes());
            prop_assert_eq!(&entry.kind, &wanted.kind);
            prop_assert_eq!(data, &wanted.data);
            prop_assert_eq!((entry.mode, entry.uid, entry.gid), (wanted.mode, wanted.uid, wanted.gid));
            prop_assert_eq!(entry.mtime, Time { seconds: wanted.mtime.into(), nanoseconds: 0 });
        }
    }

    #[test]
    fn extended_records_come_out_as_they_went_in(
        path in "[a-zé\n=]{1,600}",
        mtime in (-1_000_000_000_000_i64..1_000_000_000_000, 0..1_000_000_000_u32),
        ids in (0..u32::MAX, 0..u32::MAX),
        xattrs in prop::collection::btree_map("[a-z.%]{1,20}", prop::collection::vec(any::<u8>(), 0..300), 0..6),
        data in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let (seconds, nanoseconds) = mtime;
        // Decimal, so that a fraction before 1970 counts away from it.
        let time = if seconds < 0 && nanoseconds > 0 {
            format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
        } else {
            format!("{seconds}.{nanoseconds:09}")
        };
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = vec![
            (b"path".to_vec(), path.clone().into_bytes()),
            (b"mtime".to_vec(), time.into_bytes()),
            (b"uid".to_vec(), ids.0.to_string().into_bytes()),
            (b"gid".to_vec(), ids.1.to_string().into_bytes()),
            (b"size".to_vec(), data.len().to_string().into_bytes()),
        ];
        for (name, value) in &xattrs {
            // As GNU tar spells them.
            let name = name.replace('%', "%25").replace('=', "%3D");
            records.push((format!("SCHILY.xattr.{name}").into_bytes(), value.clone()));
        }
        let records: Vec<(&[u8], &[u8])> = records.iter().map(|(k, v)| (&k[..], &v[..])).collect();
        let header = crate::writer::Header::default();
        let bytes = Writer::default().extended(b'x', &records).entry(&header, &data).finish();
        let entries = good(&bytes);
        let directory = path.ends_with('/');
        prop_assert!(!directory);
        let (entry, found) = &entries[0];
        prop_assert_eq!(&entry.path, path.as_bytes());
        prop_assert_eq!(entry.mtime, Time { seconds, nanoseconds });
        prop_assert_eq!((entry.uid, entry.gid), ids);
        prop_assert_eq!(found, &data);
        let found: Vec<_> = entry.xattrs.iter().map(|x| (x.name.clone(), x.value.clone())).collect();
        let wanted: Vec<_> = xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        prop_assert_eq!(found, wanted);
    }
}
