//! Reading directories.

use std::{collections::BTreeSet, os::unix::fs::symlink, time::Instant};

use cofferdam_p9::wire::OpenFlags;

use crate::{client::Client, rig::Rig};

#[test]
fn entries_have_their_type_identity_and_the_dots() {
    let rig = Rig::new();
    std::fs::create_dir(rig.path("d")).unwrap();
    std::fs::write(rig.path("f"), "").unwrap();
    symlink("f", rig.path("s")).unwrap();
    let (mut client, root) = rig.attached();
    client.mknod(root, "p", libc::S_IFIFO | 0o600, (0, 0)).unwrap();
    let dir = client.open_at(root, &[], OpenFlags::DIRECTORY).unwrap();
    let mut entries = client.list(dir).unwrap();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let kinds: Vec<_> = entries
        .iter()
        .map(|entry| (entry.name.as_slice(), entry.kind))
        .collect();
    let expected: [(&[u8], u8); 6] = [
        (b".", libc::DT_DIR),
        (b"..", libc::DT_DIR),
        (b"d", libc::DT_DIR),
        (b"f", libc::DT_REG),
        (b"p", libc::DT_FIFO),
        (b"s", libc::DT_LNK),
    ];
    assert_eq!(kinds, expected);
    let root_path = client.getattr(root).unwrap().qid.path;
    assert_eq!(
        (entries[0].qid.path, entries[1].qid.path),
        (root_path, root_path),
        "`..` of the root is the root"
    );
    for entry in &entries[2..] {
        let fid = client.walk_bytes(root, &[&entry.name]).unwrap();
        let qid = client.getattr(fid).unwrap().qid;
        assert_eq!(
            (qid.path, qid.kind),
            (entry.qid.path, entry.qid.kind),
            "{entry:?}"
        );
    }
}

#[test]
fn a_listing_goes_on_at_each_of_its_offsets_and_from_the_start() {
    let rig = Rig::new();
    for index in 0..200 {
        std::fs::write(rig.path(&format!("{}{index}", "n".repeat(index % 90))), "").unwrap();
    }
    let (mut client, root) = rig.attached();
    let dir = client.open_at(root, &[], OpenFlags::DIRECTORY).unwrap();
    let all = client.list(dir).unwrap();
    assert_eq!(all.len(), 202);
    for (index, entry) in all.iter().enumerate().step_by(7) {
        let rest = client.readdir(dir, entry.offset, 60_000).unwrap();
        assert_eq!(rest, all[index + 1..], "after {index}");
    }
    assert_eq!(client.list(dir).unwrap(), all, "from the start again");
    for count in [280, 300, 600, 1000] {
        let mut small = Vec::new();
        loop {
            let offset = small
                .last()
                .map_or(0, |entry: &crate::client::Entry| entry.offset);
            let more = client.readdir(dir, offset, count).unwrap();
            if more.is_empty() {
                break;
            }
            small.extend(more);
        }
        assert_eq!(small, all, "with {count} bytes a reply");
    }
    assert_eq!(
        client.readdir(dir, 0, 10).unwrap_err(),
        libc::EINVAL,
        "no room for one entry"
    );
}

#[test]
fn removing_while_reading_hides_no_other_entry() {
    let rig = Rig::new();
    let names: BTreeSet<_> = (0..3000).map(|index| format!("file-{index}")).collect();
    for name in &names {
        std::fs::write(rig.path(name), "").unwrap();
    }
    let (mut client, root) = rig.attached();
    let dir = client.open_at(root, &[], OpenFlags::DIRECTORY).unwrap();
    let mut seen = BTreeSet::new();
    let mut offset = 0;
    loop {
        let more = client.readdir(dir, offset, 2000).unwrap();
        let Some(last) = more.last() else { break };
        offset = last.offset;
        for entry in &more {
            let name = String::from_utf8(entry.name.clone()).unwrap();
            if !name.starts_with('.') {
                client.unlinkat(root, &name, 0).unwrap();
                assert!(seen.insert(name), "{entry:?} twice");
            }
        }
    }
    assert_eq!(seen, names);
    assert_eq!(client.names(root), [".", ".."]);
}

#[test]
fn a_directory_of_100_000_entries_is_read_in_linear_time() {
    let rig = Rig::new();
    // Hard links are the quickest way to many entries; several files, since one has at most 65,000 links.
    std::fs::create_dir(rig.path("few")).unwrap();
    std::fs::create_dir(rig.path("many")).unwrap();
    for (dir, count) in [("few", 10_000), ("many", 100_000)] {
        for index in 0..count {
            let source = rig.path(&format!("{dir}-source-{}", index / 50_000));
            if index % 50_000 == 0 {
                std::fs::write(&source, "").unwrap();
            }
            std::fs::hard_link(&source, rig.path(&format!("{dir}/entry-{index}"))).unwrap();
        }
    }
    let (stream, _end) = rig.raw_connection();
    // Small messages, so that there are many of them.
    let mut client = Client::new(stream, 8192);
    let root = client.attach("share");
    let mut timed = |name: &str| {
        let dir = client.open_at(root, &[name], OpenFlags::DIRECTORY).unwrap();
        let start = Instant::now();
        let entries = client.list(dir).unwrap();
        let took = start.elapsed();
        let names: BTreeSet<_> = entries.iter().map(|entry| &entry.name).collect();
        assert_eq!(names.len(), entries.len(), "an entry came twice");
        (entries.len(), took)
    };
    timed("few");
    let (few, few_took) = timed("few");
    let (many, many_took) = timed("many");
    assert_eq!((few, many), (10_002, 100_002));
    // Ten times the entries; quadratic reading would take a hundred times as long.
    assert!(
        many_took < few_took * 40,
        "{few_took:?} for 10,000 entries, {many_took:?} for 100,000"
    );
}

#[test]
fn an_opened_directory_that_was_removed_is_empty() {
    let rig = Rig::new();
    std::fs::create_dir(rig.path("d")).unwrap();
    let (mut client, root) = rig.attached();
    let dir = client.open_at(root, &["d"], OpenFlags::DIRECTORY).unwrap();
    client.unlinkat(root, "d", 0x200).unwrap();
    let listed = client.list(dir);
    assert!(matches!(&listed, Err(libc::ENOENT)) || listed.as_ref().is_ok_and(|names| names.len() <= 2));
    assert_eq!(client.mkdir(dir, "x", 0o700, 0).unwrap_err(), libc::ENOENT);
}
