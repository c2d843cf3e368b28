//! Entries become a tar stream: ustar headers (POSIX.1-1988), with an extended header (pax, POSIX.1-2001) before each
//! whose fields do not hold everything. Sparse files are GNU tar's, version 1.0.

use std::io::{self, Write};

use crate::{
    Entry, Kind, Segment, Time,
    header::{BLOCK_BYTES, Block},
};

/// The largest number of a field of 8 and of 12 bytes: octal digits and a NUL.
const MAX_SHORT: u64 = 0o7_777_777;
const MAX_LONG: u64 = 0o77_777_777_777;
/// Bytes of the fields for a name and for a link's target.
const NAME_BYTES: usize = 100;

/// Writes entries in the order they are given.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    /// Bytes of the current entry's data that are still to come, and of the padding after them.
    data_left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Starts at the stream's first byte.
    pub fn new(output: W) -> Self {
        Self {
            output,
            data_left: 0,
            padding: 0,
        }
    }

    /// Writes an entry's headers. A file's data follows with [`Writer::data`]: of one with segments, theirs only.
    ///
    /// # Errors
    /// The output's; [`io::ErrorKind::InvalidInput`] where the data of the entry before is incomplete.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.check_complete()?;
        let mut path = entry.path.clone();
        if entry.kind == Kind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut records = Records::default();
        let map = match &entry.kind {
            Kind::File {
                size,
                segments: Some(segments),
            } => {
                records.add(b"GNU.sparse.major", b"1");
                records.add(b"GNU.sparse.minor", b"0");
                records.add(b"GNU.sparse.name", &path);
                records.add(b"GNU.sparse.realsize", size.to_string().as_bytes());
                path = b"GNUSparseFile.0/data".to_vec();
                sparse_map(*size, segments)
            }
            _ => Vec::new(),
        };
        let data = match &entry.kind {
            Kind::File { size, segments: None } => *size,
            Kind::File {
                segments: Some(segments),
                ..
            } => segments.iter().map(|segment| segment.length).sum(),
            _ => 0,
        };
        let mut block = [0; BLOCK_BYTES];
        self.fields(&mut block, entry, &path, map.len() as u64 + data, &mut records);
        for xattr in &entry.xattrs {
            records.add(&[b"SCHILY.xattr.", xattr.name.as_slice()].concat(), &xattr.value);
        }
        self.extended(&records.0)?;
        self.output.write_all(&sealed(block))?;
        self.output.write_all(&map)?;
        self.data_left = data;
        self.padding = padding(data);
        Ok(())
    }

    /// The next piece of the current entry's data.
    ///
    /// # Errors
    /// The output's; [`io::ErrorKind::InvalidInput`] where it is more than the entry said.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(left) = self.data_left.checked_sub(bytes.len() as u64) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an entry has more data than its size",
            ));
        };
        self.output.write_all(bytes)?;
        self.data_left = left;
        if left == 0 {
            let padding = std::mem::take(&mut self.padding);
            self.output.write_all(&[0; BLOCK_BYTES][..padding])?;
        }
        Ok(())
    }

    /// Ends the archive and gives the output back, flushed.
    ///
    /// # Errors
    /// As for [`Writer::entry`].
    pub fn finish(mut self) -> io::Result<W> {
        self.check_complete()?;
        self.output.write_all(&[0; 2 * BLOCK_BYTES])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn check_complete(&self) -> io::Result<()> {
        if self.data_left == 0 {
            return Ok(());
        }
        let text = format!("{} bytes of an entry's data are missing", self.data_left);
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }

    fn fields(&self, block: &mut Block, entry: &Entry, path: &[u8], size: u64, records: &mut Records) {
        name(block, 0, path, b"path", records);
        octal(&mut block[100..108], u64::from(entry.mode & 0o7777));
        for (place, id, keyword) in [(108, entry.uid, &b"uid"[..]), (116, entry.gid, b"gid")] {
            number(
                &mut block[place..place + 8],
                id.into(),
                MAX_SHORT,
                keyword,
                records,
            );
        }
        number(&mut block[124..136], size, MAX_LONG, b"size", records);
        let Time { seconds, nanoseconds } = entry.mtime;
        let whole = u64::try_from(seconds).ok().filter(|seconds| *seconds <= MAX_LONG);
        octal(&mut block[136..148], whole.unwrap_or(0));
        if nanoseconds != 0 || whole.is_none() {
            records.add(b"mtime", decimal(entry.mtime).as_bytes());
        }
        let (typeflag, link, device) = match &entry.kind {
            Kind::File { .. } => (b'0', &[][..], (0, 0)),
            Kind::HardLink { target } => (b'1', target.as_slice(), (0, 0)),
            Kind::Symlink { target } => (b'2', target.as_slice(), (0, 0)),
            Kind::CharacterDevice { major, minor } => (b'3', &[][..], (*major, *minor)),
            Kind::BlockDevice { major, minor } => (b'4', &[][..], (*major, *minor)),
            Kind::Directory => (b'5', &[][..], (0, 0)),
            Kind::Fifo => (b'6', &[][..], (0, 0)),
        };
        block[156] = typeflag;
        name(block, 157, link, b"linkpath", records);
        block[257..265].copy_from_slice(b"ustar\x0000");
        // Linux has device numbers of 12 and 20 bits; both fit.
        octal(&mut block[329..337], u64::from(device.0).min(MAX_SHORT));
        octal(&mut block[337..345], u64::from(device.1).min(MAX_SHORT));
    }

    fn extended(&mut self, records: &[u8]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut block = [0; BLOCK_BYTES];
        block[..11].copy_from_slice(b"PaxHeaders/");
        octal(&mut block[100..108], 0o644);
        octal(&mut block[108..116], 0);
        octal(&mut block[116..124], 0);
        octal(&mut block[124..136], records.len() as u64);
        octal(&mut block[136..148], 0);
        block[156] = b'x';
        block[257..265].copy_from_slice(b"ustar\x0000");
        self.output.write_all(&sealed(block))?;
        self.output.write_all(records)?;
        self.output
            .write_all(&[0; BLOCK_BYTES][..padding(records.len() as u64)])
    }
}

/// The records of an extended header.
#[derive(Debug, Default)]
struct Records(Vec<u8>);

impl Records {
    /// `LENGTH KEYWORD=VALUE\n`, the length being that of the whole, its own digits included.
    fn add(&mut self, keyword: &[u8], value: &[u8]) {
        let rest = keyword.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        let parts = [length.to_string().as_bytes(), b" ", keyword, b"=", value, b"\n"].concat();
        self.0.extend_from_slice(&parts);
    }
}

fn name(block: &mut Block, place: usize, text: &[u8], keyword: &[u8], records: &mut Records) {
    let cut = &text[..text.len().min(NAME_BYTES)];
    block[place..place + cut.len()].copy_from_slice(cut);
    if cut.len() < text.len() {
        records.add(keyword, text);
    }
}

fn number(field: &mut [u8], value: u64, most: u64, keyword: &[u8], records: &mut Records) {
    octal(field, if value > most { 0 } else { value });
    if value > most {
        records.add(keyword, value.to_string().as_bytes());
    }
}

/// Octal digits with leading zeros up to the NUL at the field's end.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    field[..digits].copy_from_slice(&text.as_bytes()[..digits]);
}

/// Seconds with as much of a fraction as there is.
fn decimal(time: Time) -> String {
    // As one number, because a time before 1970 counts its nanoseconds upwards from a second below it.
    let nanoseconds = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (whole, rest) = (
        nanoseconds.unsigned_abs() / 1_000_000_000,
        nanoseconds.unsigned_abs() % 1_000_000_000,
    );
    match rest {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{rest:09}")
            .trim_end_matches('0')
            .to_owned(),
    }
}

fn sparse_map(size: u64, segments: &[Segment]) -> Vec<u8> {
    let mut pairs: Vec<_> = segments
        .iter()
        .map(|segment| (segment.offset, segment.length))
        .collect();
    // GNU tar takes the size from the last pair.
    if pairs.last().is_none_or(|(offset, length)| offset + length < size) {
        pairs.push((size, 0));
    }
    let mut text = format!("{}\n", pairs.len());
    for (offset, length) in pairs {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut map = text.into_bytes();
    map.resize(map.len() + padding(map.len() as u64), 0);
    map
}

fn padding(bytes: u64) -> usize {
    let past = (bytes % BLOCK_BYTES as u64) as usize;
    (BLOCK_BYTES - past) % BLOCK_BYTES
}

/// The block with its checksum.
fn sealed(mut block: Block) -> Block {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    octal(&mut block[148..155], sum.into());
    block
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Archive, Limits, Xattr};

    fn written(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (entry, data) in entries {
            writer.entry(entry).unwrap();
            writer.data(data).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(archive: &[u8]) -> Vec<(Entry, Vec<u8>)> {
        let limits = Limits {
            file_bytes: u64::MAX,
            ..Limits::default()
        };
        let mut archive = Archive::new(archive, limits);
        let mut read = Vec::new();
        while let Some(entry) = archive.next_entry().unwrap() {
            let mut data = Vec::new();
            loop {
                let piece = archive.data().unwrap();
                if piece.is_empty() {
                    break;
                }
                data.extend_from_slice(piece);
                let length = piece.len();
                archive.consume(length);
            }
            read.push((entry, data));
        }
        read
    }

    fn entry(path: &[u8], kind: Kind) -> Entry {
        Entry {
            path: path.to_vec(),
            kind,
            mode: 0o640,
            uid: 7,
            gid: 8,
            mtime: Time::default(),
            xattrs: Vec::new(),
        }
    }

    fn kinds() -> impl Strategy<Value = (Kind, Vec<u8>)> {
        let name = || proptest::collection::vec(1..=255_u8, 1..300);
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..2000).prop_map(|data| {
                let size = data.len() as u64;
                (Kind::File { size, segments: None }, data)
            }),
            name().prop_map(|target| (Kind::HardLink { target }, Vec::new())),
            name().prop_map(|target| (Kind::Symlink { target }, Vec::new())),
            (0..4096_u32, 0..1_048_576_u32)
                .prop_map(|(major, minor)| (Kind::CharacterDevice { major, minor }, Vec::new())),
            Just((Kind::Fifo, Vec::new())),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            path in proptest::collection::vec(1..=255_u8, 1..300).prop_filter("no directory", |path| !path.ends_with(b"/")),
            (kind, data) in kinds(),
            mode in 0..=0o7777_u32,
            (uid, gid) in (0..u32::MAX, 0..u32::MAX),
            seconds in -1_000_000_000_000_i64..1_000_000_000_000,
            nanoseconds in 0..1_000_000_000_u32,
            value in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let xattrs = vec![Xattr { name: b"user.any".to_vec(), value }];
            let entry = Entry { path, kind, mode, uid, gid, mtime: Time { seconds, nanoseconds }, xattrs };
            let entries = vec![(entry, data)];
            prop_assert_eq!(read(&written(&entries)), entries);
        }
    }

    #[test]
    fn sizes_beyond_octal_and_holes_are_kept() {
        let mut large = Writer::new(Vec::new());
        let huge = Kind::File {
            size: MAX_LONG + 5,
            segments: None,
        };
        large.entry(&entry(b"huge", huge.clone())).unwrap();
        assert!(
            large.entry(&entry(b"next", Kind::Fifo)).is_err(),
            "its data is missing"
        );
        let limits = Limits {
            file_bytes: u64::MAX,
            ..Limits::default()
        };
        let mut archive = Archive::new(large.output.as_slice(), limits);
        assert_eq!(archive.next_entry().unwrap().unwrap().kind, huge);

        let segments = vec![
            Segment {
                offset: 4096,
                length: 3,
            },
            Segment {
                offset: 1 << 40,
                length: 2,
            },
        ];
        let sparse = |size, segments: &[Segment]| Kind::File {
            size,
            segments: Some(segments.to_vec()),
        };
        let entries = vec![
            (entry(b"a/holes", sparse(1 << 41, &segments)), b"abcde".to_vec()),
            (
                entry(b"no/hole/at/its/end", sparse((1 << 40) + 2, &segments)),
                b"fghij".to_vec(),
            ),
            (entry(b"after", Kind::Directory), Vec::new()),
        ];
        let found = read(&written(&entries));
        assert_eq!(found[1], entries[1]);
        assert_eq!(found[2].0.path, b"after/");
        let Kind::File {
            size,
            segments: Some(read),
        } = &found[0].0.kind
        else {
            panic!("{:?}", found[0].0);
        };
        assert_eq!((*size, &read[..2]), (1 << 41, &segments[..]));
        assert_eq!(found[0].1, b"abcde");
    }

    #[test]
    fn more_data_than_was_said_is_refused() {
        let mut writer = Writer::new(Vec::new());
        let kind = Kind::File {
            size: 2,
            segments: None,
        };
        writer.entry(&entry(b"f", kind)).unwrap();
        writer.data(b"a").unwrap();
        assert!(writer.data(b"bc").is_err());
        assert!(writer.finish().is_err());
    }
}
