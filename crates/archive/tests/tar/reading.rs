//! All of an archive at once.

use std::io::BufRead;

use cofferdam_archive::{Archive, ArchiveError, Entry, Kind, Limits};

/// Entries with their data.
pub(crate) type Entries = Vec<(Entry, Vec<u8>)>;

/// Every entry with its data, and how the reading ended.
pub(crate) fn all(input: impl BufRead, limits: Limits) -> (Entries, Result<u64, ArchiveError>) {
    let mut archive = Archive::new(input, limits);
    let mut entries = Vec::new();
    let end = loop {
        match archive.next_entry() {
            Ok(Some(entry)) => entries.push((entry, Vec::new())),
            Ok(None) => break Ok(archive.position()),
            Err(error) => break Err(error),
        }
        let into = &mut entries.last_mut().unwrap().1;
        let failed = loop {
            match archive.data() {
                Ok([]) => break None,
                Ok(data) => {
                    into.extend_from_slice(data);
                    let length = data.len();
                    archive.consume(length);
                }
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = failed {
            break Err(error);
        }
    };
    (entries, end)
}

/// Every entry of an archive that has to be good.
pub(crate) fn good(bytes: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let (entries, end) = all(bytes, Limits::default());
    end.unwrap();
    entries
}

/// A file's content, its holes filled.
pub(crate) fn content((entry, data): &(Entry, Vec<u8>)) -> Vec<u8> {
    let Kind::File { size, segments } = &entry.kind else {
        panic!("{} is no file", entry.path.escape_ascii())
    };
    let Some(segments) = segments else {
        assert_eq!(*size, data.len() as u64);
        return data.clone();
    };
    let mut content = vec![0; usize::try_from(*size).unwrap()];
    let mut data = &data[..];
    for segment in segments {
        let (piece, rest) = data.split_at(usize::try_from(segment.length).unwrap());
        let offset = usize::try_from(segment.offset).unwrap();
        content[offset..offset + piece.len()].copy_from_slice(piece);
        data = rest;
    }
    assert!(data.is_empty());
    content
}
