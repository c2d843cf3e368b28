//! Extended headers: POSIX.1-2001 pax, with GNU tar's and libarchive's own records.
//!
//! A record is `length keyword=value\n`, its length counting all of it. Values may hold any byte, newlines and NULs
//! included.

use crate::{ArchiveError, Time, Xattr, error::Where, number};

/// Keywords of attributes, as star and GNU tar write them: the value is the attribute's own bytes.
const SCHILY: &[u8] = b"SCHILY.xattr.";
/// As libarchive writes them: the name percent-encoded, the value in base64.
const LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";

/// Bytes that global headers may leave for every entry after them. An entry of 512 bytes must not cost its reader a
/// megabyte of attributes; `git archive`, which is who writes global headers, leaves nothing.
const GLOBAL_BYTES: usize = 16 * 1024;

/// What extended headers say of an entry; `None` where they say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extended {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<i64>,
    pub(crate) uid: Option<i64>,
    pub(crate) gid: Option<i64>,
    pub(crate) mtime: Option<Time>,
    pub(crate) sparse: Sparse,
    /// In the order of their records.
    xattrs: Vec<Found>,
}

/// An extended attribute, and whose spelling of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    xattr: Xattr,
    /// libarchive's. It writes both; the other one is exact, and all that most readers know.
    encoded: bool,
}

/// GNU tar's records of a sparse file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// `GNU.sparse.major`: 1 has its map before the data.
    pub(crate) major: Option<i64>,
    /// `GNU.sparse.name`, the file's real path.
    pub(crate) name: Option<Vec<u8>>,
    /// `GNU.sparse.realsize`, or in version 0 `GNU.sparse.size`.
    pub(crate) real_size: Option<i64>,
    /// Version 0: offsets and lengths in turn, from `GNU.sparse.offset` and `numbytes` or from `GNU.sparse.map`.
    pub(crate) map: Vec<i64>,
}

impl Sparse {
    /// Whether the entry is a sparse file.
    pub(crate) fn is_some(&self) -> bool {
        *self != Self::default()
    }
}

impl Extended {
    /// Adds a header's records; a later one of the same keyword wins, and an empty value takes it back.
    pub(crate) fn read(
        &mut self,
        records: &[u8],
        at: Where<'_>,
        segments: usize,
    ) -> Result<(), ArchiveError> {
        let mut rest = records;
        while !rest.is_empty() {
            let (record, after) = record(rest).ok_or_else(|| at.record("no `length keyword=value`", rest))?;
            rest = after;
            let equals = record.iter().position(|byte| *byte == b'=');
            let Some(equals) = equals.filter(|equals| *equals > 0) else {
                return Err(at.record("no keyword", record));
            };
            self.take(&record[..equals], &record[equals + 1..], at, segments)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        keyword: &[u8],
        value: &[u8],
        at: Where<'_>,
        segments: usize,
    ) -> Result<(), ArchiveError> {
        let text = || (!value.is_empty()).then(|| value.to_vec());
        let decimal = |field| match value {
            b"" => Ok(None),
            value => number::decimal(value)
                .map(Some)
                .map_err(|_| at.number(field, value)),
        };
        match keyword {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = decimal("the record `size`")?,
            b"uid" => self.uid = decimal("the record `uid`")?,
            b"gid" => self.gid = decimal("the record `gid`")?,
            b"mtime" => {
                self.mtime = match value {
                    b"" => None,
                    value => Some(number::time(value).map_err(|_| at.number("the record `mtime`", value))?),
                }
            }
            b"GNU.sparse.major" => self.sparse.major = decimal("the record `GNU.sparse.major`")?,
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse.real_size = decimal("the size of a sparse file")?;
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let even = self.sparse.map.len().is_multiple_of(2);
                if even != (keyword == b"GNU.sparse.offset") {
                    return Err(at.sparse("its map has not an offset and a length in turn"));
                }
                self.push(
                    number::decimal(value).map_err(|_| at.number("the map of a sparse file", value))?,
                    at,
                    segments,
                )?;
            }
            b"GNU.sparse.map" => {
                self.sparse.map.clear();
                for part in value.split(|byte| *byte == b',').filter(|part| !part.is_empty()) {
                    let number =
                        number::decimal(part).map_err(|_| at.number("the map of a sparse file", part))?;
                    self.push(number, at, segments)?;
                }
            }
            _ => {
                if let Some(name) = keyword.strip_prefix(SCHILY) {
                    self.add_xattr(gnu_decoded(name), value.to_vec(), false, at)?;
                } else if let Some(name) = keyword.strip_prefix(LIBARCHIVE) {
                    let name = percent_decoded(name)
                        .ok_or_else(|| at.record("an attribute's name is not percent-encoded", name))?;
                    let value = base64_decoded(value)
                        .ok_or_else(|| at.record("an attribute's value is no base64", value))?;
                    self.add_xattr(name, value, true, at)?;
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, number: i64, at: Where<'_>, segments: usize) -> Result<(), ArchiveError> {
        if self.sparse.map.len() >= segments.saturating_mul(2) {
            return Err(at.limit("segments of a sparse file", segments as u64));
        }
        self.sparse.map.push(number);
        Ok(())
    }

    fn add_xattr(
        &mut self,
        name: Vec<u8>,
        value: Vec<u8>,
        encoded: bool,
        at: Where<'_>,
    ) -> Result<(), ArchiveError> {
        if name.is_empty() || name.contains(&0) {
            return Err(at.record("an attribute's name is empty or has a NUL byte", &name));
        }
        let xattr = Xattr { name, value };
        self.xattrs.push(Found { xattr, encoded });
        Ok(())
    }

    /// The attributes by name, each once: of a name's records the exact spelling counts before the encoded one, and the
    /// last of a spelling.
    pub(crate) fn take_xattrs(&mut self) -> Vec<Xattr> {
        let mut found = std::mem::take(&mut self.xattrs);
        // Sorted once rather than kept sorted: a megabyte of records has tens of thousands of names.
        found.reverse();
        found.sort_by(|a, b| (&a.xattr.name, a.encoded).cmp(&(&b.xattr.name, b.encoded)));
        found.dedup_by(|next, kept| next.xattr.name == kept.xattr.name);
        found.into_iter().map(|found| found.xattr).collect()
    }

    /// Makes of what was read the records of a global header, which all entries after it start from.
    pub(crate) fn keep_as_global(&mut self, at: Where<'_>) -> Result<(), ArchiveError> {
        // A map of one file is not one of all files.
        self.sparse = Sparse::default();
        let again = |xattr| Found {
            xattr,
            encoded: false,
        };
        self.xattrs = self.take_xattrs().into_iter().map(again).collect();
        let length = |path: &Option<Vec<u8>>| path.as_ref().map_or(0, Vec::len);
        let xattrs = self
            .xattrs
            .iter()
            .map(|Found { xattr, .. }| size_of::<Found>() + xattr.name.len() + xattr.value.len());
        if length(&self.path) + length(&self.link) + xattrs.sum::<usize>() > GLOBAL_BYTES {
            return Err(at.limit(
                "bytes for all entries of an archive in global headers",
                GLOBAL_BYTES as u64,
            ));
        }
        Ok(())
    }
}

/// The first record without its length and newline, and what is after it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number::decimal(&bytes[..blank]).ok()?).ok()?;
    if length <= blank + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return None;
    }
    Some((&bytes[blank + 1..length - 1], &bytes[length..]))
}

/// GNU tar's spelling of an attribute's name: a keyword cannot hold `=`, so that is `%3D`, and `%` is `%25`. Anything
/// else after a `%` is what it is: other writers encode nothing.
fn gnu_decoded(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [byte, after @ ..] = rest {
        let (byte, after) = match rest {
            [b'%', b'3', b'D', after @ ..] => (b'=', after),
            [b'%', b'2', b'5', after @ ..] => (b'%', after),
            _ => (*byte, after),
        };
        decoded.push(byte);
        rest = after;
    }
    decoded
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        if *byte != b'%' {
            decoded.push(*byte);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        let value = |digit: u8| char::from(digit).to_digit(16);
        let [high, low] = [value(digits[0])?, value(digits[1])?];
        decoded.push(u8::try_from(high << 4 | low).ok()?);
        rest = after;
    }
    Some(decoded)
}

/// Base64 with or without its padding.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text
        .strip_suffix(b"==")
        .or_else(|| text.strip_suffix(b"="))
        .unwrap_or(text);
    if digits.len() % 4 == 1 {
        return None;
    }
    let mut decoded = Vec::with_capacity(digits.len() * 3 / 4);
    let mut bits = 0u32;
    let mut held = 0;
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            decoded.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Where<'static> = Where {
        offset: 0,
        path: b"f",
    };

    fn read(records: &[&[u8]]) -> Result<Extended, ArchiveError> {
        let mut extended = Extended::default();
        extended.read(&records.concat(), AT, 4)?;
        Ok(extended)
    }

    /// A record with the length it has to state.
    fn with_length(keyword: &str, value: &[u8]) -> Vec<u8> {
        let rest = [b" ", keyword.as_bytes(), b"=", value, b"\n"].concat();
        let mut length = rest.len() + 1;
        while length != rest.len() + length.to_string().len() {
            length += 1;
        }
        [length.to_string().as_bytes(), &rest].concat()
    }

    #[test]
    fn values_may_hold_any_byte() {
        let value = b"a=b\n\0\xff 12 x=y\n";
        let mut read = read(&[
            &with_length("SCHILY.xattr.user.x", value),
            &with_length("path", b"p"),
        ])
        .expect("well formed");
        assert_eq!(
            read.take_xattrs(),
            [Xattr {
                name: b"user.x".to_vec(),
                value: value.to_vec()
            }]
        );
        assert_eq!(read.path.as_deref(), Some(&b"p"[..]));
    }

    #[test]
    fn the_last_of_a_keyword_counts_and_an_empty_one_takes_it_back() {
        let read = read(&[
            &with_length("path", b"a"),
            &with_length("path", b"b"),
            &with_length("uid", b"7"),
            &with_length("uid", b""),
        ])
        .expect("well formed");
        assert_eq!((read.path.as_deref(), read.uid), (Some(&b"b"[..]), None));
    }

    #[test]
    fn libarchives_attributes_are_decoded() {
        let mut read = read(&[&with_length("LIBARCHIVE.xattr.user.a%3Db", b"AQID/w")]).expect("well formed");
        assert_eq!(
            read.take_xattrs(),
            [Xattr {
                name: b"user.a=b".to_vec(),
                value: vec![1, 2, 3, 255]
            }]
        );
    }

    #[test]
    fn of_a_names_records_the_exact_and_the_last_count() {
        let mut read = read(&[
            &with_length("SCHILY.xattr.user.b%3D%25%41", b"1"),
            &with_length("SCHILY.xattr.user.a", b"2"),
            &with_length("SCHILY.xattr.user.a", b"3"),
            &with_length("LIBARCHIVE.xattr.user.a", b"NA"),
            &with_length("SCHILY.xattr.user.empty", b""),
        ])
        .expect("well formed");
        let xattrs = read.take_xattrs();
        let found: Vec<_> = xattrs.iter().map(|x| (&x.name[..], &x.value[..])).collect();
        assert_eq!(
            found,
            [
                (&b"user.a"[..], &b"3"[..]),
                (b"user.b=%%41", b"1"),
                (b"user.empty", b""),
            ]
        );
    }

    #[test]
    fn what_global_headers_leave_is_bounded_however_many_there_are() {
        let mut global = Extended::default();
        let mut refused = false;
        for n in 0..100 {
            let record = with_length(&format!("SCHILY.xattr.user.{n}"), &[b'x'; 500]);
            global.read(&record, AT, 4).expect("well formed");
            refused |= global.keep_as_global(AT).is_err();
        }
        assert!(refused);
        let mut global = Extended::default();
        for _ in 0..100 {
            let record = with_length("SCHILY.xattr.user.same", &[b'x'; 500]);
            global.read(&record, AT, 4).expect("well formed");
            global.keep_as_global(AT).expect("one attribute");
        }
    }

    #[test]
    fn base64_is_taken_with_and_without_padding() {
        for (text, value) in [
            (&b""[..], Some(&b""[..])),
            (b"Zg", Some(b"f")),
            (b"Zg==", Some(b"f")),
            (b"Zm8=", Some(b"fo")),
            (b"/+8", Some(b"\xff\xef")),
            (b"Z", None),
            (b"Zg===", None),
            (b"Z=g", None),
        ] {
            assert_eq!(base64_decoded(text).as_deref(), value, "{text:?}");
        }
        for name in [&b"a%+1"[..], b"a%4", b"a%4g"] {
            assert_eq!(percent_decoded(name), None, "{name:?}");
        }
    }

    #[test]
    fn records_that_lie_about_themselves_are_refused() {
        for bad in [
            &b"5 a=\n"[..2],
            b"99 a=b\n",
            b"6 a=bX",
            b"0 a=b\n",
            b"-6 a=b\n",
            b"6 abc\n",
            b"5 =b\n",
            b"x a=b\n",
            b"18 SCHILY.xattr.=a\n",
            b"20 SCHILY.xattr.a\0=b\n",
        ] {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
        assert!(read(&[&with_length("GNU.sparse.map", b"0,1,2,3,4,5,6,7,8,9")]).is_err());
        assert!(read(&[&with_length("GNU.sparse.numbytes", b"1")]).is_err());
    }
}
