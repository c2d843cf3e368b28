//! Writes archives as other programs write them, and as none would: what is handed in is not checked.

/// One header block's fields; the rest is what every writer has.
#[derive(Debug, Clone)]
pub(crate) struct Header<'a> {
    /// Up to 100 bytes.
    pub(crate) name: &'a [u8],
    /// The type.
    pub(crate) typeflag: u8,
    /// The size field.
    pub(crate) size: u64,
    /// The link's target, up to 100 bytes.
    pub(crate) link: &'a [u8],
    /// The mode field.
    pub(crate) mode: u64,
    /// The user's field; negative and large ones in base 256.
    pub(crate) uid: i64,
    /// The group's field.
    pub(crate) gid: i64,
    /// The time field.
    pub(crate) mtime: i64,
    /// Major and minor number.
    pub(crate) device: (u64, u64),
    /// Bytes at 257: the layout's name.
    pub(crate) magic: &'a [u8],
    /// Bytes at 345: ustar's prefix, or what GNU has there.
    pub(crate) prefix: &'a [u8],
}

/// Magic and version of a layout.
pub(crate) const USTAR: &[u8] = b"ustar\x0000";
pub(crate) const GNU: &[u8] = b"ustar  \0";
pub(crate) const V7: &[u8] = b"";

impl Default for Header<'_> {
    fn default() -> Self {
        Self {
            name: b"file",
            typeflag: b'0',
            size: 0,
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            device: (0, 0),
            magic: USTAR,
            prefix: b"",
        }
    }
}

impl Header<'_> {
    /// The block, with its checksum.
    pub(crate) fn block(&self) -> [u8; 512] {
        let mut block = [0; 512];
        put(&mut block[0..100], self.name);
        number(&mut block[100..108], i64::try_from(self.mode).unwrap_or(i64::MAX));
        number(&mut block[108..116], self.uid);
        number(&mut block[116..124], self.gid);
        number(&mut block[124..136], i64::try_from(self.size).unwrap_or(i64::MAX));
        number(&mut block[136..148], self.mtime);
        block[156] = self.typeflag;
        put(&mut block[157..257], self.link);
        put(&mut block[257..265], self.magic);
        if matches!(self.typeflag, b'3' | b'4') {
            number(&mut block[329..337], self.device.0.try_into().unwrap_or(i64::MAX));
            number(&mut block[337..345], self.device.1.try_into().unwrap_or(i64::MAX));
        }
        put(&mut block[345..500], self.prefix);
        checksum(&mut block);
        block
    }
}

/// Writes the block's checksum anew.
pub(crate) fn checksum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut block[148..155], format!("{sum:06o}\0").as_bytes());
}

fn put(field: &mut [u8], bytes: &[u8]) {
    field[..bytes.len()].copy_from_slice(bytes);
}

/// Octal if it fits, else base 256.
fn number(field: &mut [u8], value: i64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    if value >= 0 && text.len() <= digits {
        put(field, text.as_bytes());
    } else {
        let bytes = i128::from(value).to_be_bytes();
        let length = field.len();
        field.copy_from_slice(&bytes[bytes.len() - length..]);
        field[0] |= 0x80;
    }
}

/// A pax record with the length it has to state.
pub(crate) fn record(keyword: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = [b" ", keyword, b"=", value, b"\n"].concat();
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length += 1;
    }
    [length.to_string().as_bytes(), &rest].concat()
}

/// An archive that grows.
#[derive(Debug, Default, Clone)]
pub(crate) struct Writer {
    /// What there is of it.
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    /// A header alone.
    pub(crate) fn header(&mut self, header: &Header<'_>) -> &mut Self {
        self.bytes.extend_from_slice(&header.block());
        self
    }

    /// Data and its padding.
    pub(crate) fn data(&mut self, data: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// A header whose size is that of the data.
    pub(crate) fn entry(&mut self, header: &Header<'_>, data: &[u8]) -> &mut Self {
        let size = data.len() as u64;
        self.header(&Header {
            size,
            ..header.clone()
        })
        .data(data)
    }

    /// An extended header: `x`, or the global `g`.
    pub(crate) fn extended(&mut self, typeflag: u8, records: &[(&[u8], &[u8])]) -> &mut Self {
        let records: Vec<u8> = records.iter().flat_map(|(k, v)| record(k, v)).collect();
        let name = b"./PaxHeaders/entry";
        self.entry(
            &Header {
                name,
                typeflag,
                ..Header::default()
            },
            &records,
        )
    }

    /// GNU's long name (`L`) or link (`K`).
    pub(crate) fn long(&mut self, typeflag: u8, name: &[u8]) -> &mut Self {
        self.entry(
            &Header {
                name: b"././@LongLink",
                typeflag,
                magic: GNU,
                ..Header::default()
            },
            &[name, b"\0"].concat(),
        )
    }

    /// GNU's own sparse file, its map in the header and as many blocks as it needs.
    pub(crate) fn gnu_sparse(
        &mut self,
        name: &[u8],
        real_size: u64,
        map: &[(u64, u64)],
        data: &[u8],
    ) -> &mut Self {
        let number_pair = |block: &mut [u8], (offset, length): (u64, u64)| {
            number(&mut block[..12], offset.try_into().unwrap_or(i64::MAX));
            number(&mut block[12..24], length.try_into().unwrap_or(i64::MAX));
        };
        let mut block = Header {
            name,
            typeflag: b'S',
            size: data.len() as u64,
            magic: GNU,
            ..Header::default()
        }
        .block();
        let (first, rest) = map.split_at(map.len().min(4));
        for (pair, place) in first.iter().zip(block[386..].chunks_mut(24)) {
            number_pair(place, *pair);
        }
        block[482] = u8::from(!rest.is_empty());
        number(&mut block[483..495], real_size.try_into().unwrap_or(i64::MAX));
        checksum(&mut block);
        self.bytes.extend_from_slice(&block);
        let blocks = rest.chunks(21).count();
        for (index, pairs) in rest.chunks(21).enumerate() {
            let mut block = [0; 512];
            for (pair, place) in pairs.iter().zip(block.chunks_mut(24)) {
                number_pair(place, *pair);
            }
            block[504] = u8::from(index + 1 < blocks);
            self.bytes.extend_from_slice(&block);
        }
        self.data(data)
    }

    /// A sparse file of pax version 0.0, 0.1 or 1.0.
    pub(crate) fn pax_sparse(
        &mut self,
        version: (u8, u8),
        name: &[u8],
        real_size: u64,
        map: &[(u64, u64)],
        data: &[u8],
    ) -> &mut Self {
        let text = |number: u64| number.to_string().into_bytes();
        let mut records: Vec<(&[u8], Vec<u8>)> = Vec::new();
        let mut before = Vec::new();
        match version {
            (0, minor) => {
                records.push((b"GNU.sparse.size", text(real_size)));
                records.push((b"GNU.sparse.numblocks", text(map.len() as u64)));
                if minor == 0 {
                    for (offset, length) in map {
                        records.push((b"GNU.sparse.offset", text(*offset)));
                        records.push((b"GNU.sparse.numbytes", text(*length)));
                    }
                } else {
                    let map: Vec<String> = map.iter().map(|(o, l)| format!("{o},{l}")).collect();
                    records.push((b"GNU.sparse.name", name.to_vec()));
                    records.push((b"GNU.sparse.map", map.join(",").into_bytes()));
                }
            }
            _ => {
                records.push((b"GNU.sparse.major", text(version.0.into())));
                records.push((b"GNU.sparse.minor", text(version.1.into())));
                records.push((b"GNU.sparse.name", name.to_vec()));
                records.push((b"GNU.sparse.realsize", text(real_size)));
                before = format!("{}\n", map.len()).into_bytes();
                for (offset, length) in map {
                    before.extend_from_slice(format!("{offset}\n{length}\n").as_bytes());
                }
                before.resize(before.len().next_multiple_of(512), 0);
            }
        }
        let records: Vec<(&[u8], &[u8])> = records.iter().map(|(k, v)| (*k, &v[..])).collect();
        // Only 0.0 has the file's own name here.
        let own: &[u8] = if version == (0, 0) {
            name
        } else {
            b"GNUSparseFile.0/x"
        };
        self.extended(b'x', &records).entry(
            &Header {
                name: own,
                ..Header::default()
            },
            &[before, data.to_vec()].concat(),
        )
    }

    /// The end mark, and all of it.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        std::mem::take(&mut self.bytes)
    }
}
