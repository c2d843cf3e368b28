//! From headers to an entry: whose word counts, and what data follows.

use std::io::BufRead;

use super::{Archive, Before, KEPT_PATH};
use crate::{
    ArchiveError, Entry, Kind, Segment, Time,
    error::Where,
    header::{BLOCK_BYTES, Header},
    pax::Extended,
    sparse::{self, Lines, Map},
};

impl<R: BufRead> Archive<R> {
    /// The entry of a header that is its own.
    pub(super) fn entry(&mut self, header: &Header<'_>, before: Before) -> Result<Entry, ArchiveError> {
        // Without an extended header of its own an entry has the global ones' records; with one it started from them.
        let mut extended = before.extended.unwrap_or_else(|| self.global.clone());
        let path = extended
            .sparse
            .name
            .take()
            .or(before.path)
            .or_else(|| extended.path.take())
            .unwrap_or_else(|| header.path().into_owned());
        self.path.clear();
        self.path.extend_from_slice(&path[..path.len().min(KEPT_PATH)]);
        let at = Where {
            offset: header.place().offset,
            path: &path,
        };
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(at.limit("entries", self.limits.entries));
        }
        check_path(&path, "the path", self.limits.path_bytes, at)?;
        let link = before
            .link
            .or_else(|| extended.link.take())
            .unwrap_or_else(|| header.link().to_vec());
        let id = |field, extended: Option<i64>, own: &dyn Fn() -> Result<i64, ArchiveError>| {
            let value = match extended {
                Some(value) => value,
                None => own()?,
            };
            u32::try_from(value)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| at.range(field, value, u64::from(u32::MAX - 1)))
        };
        let uid = id("the user ID", extended.uid, &|| header.uid())?;
        let gid = id("the group ID", extended.gid, &|| header.gid())?;
        let mtime = match extended.mtime {
            Some(mtime) => mtime,
            None => Time {
                seconds: header.mtime()?,
                nanoseconds: 0,
            },
        };
        let stored = match extended.size {
            Some(size) => size,
            None => header.size()?,
        };
        let stored =
            u64::try_from(stored).map_err(|_| at.range("the size", stored, self.limits.file_bytes))?;
        if stored > self.limits.file_bytes {
            return Err(at.limit("bytes of a file", self.limits.file_bytes));
        }
        let xattrs = extended.take_xattrs();
        let kind = self.kind(header, &extended, &path, link, stored)?;
        Ok(Entry {
            path,
            kind,
            mode: header.mode()?,
            uid,
            gid,
            mtime,
            xattrs,
        })
    }

    fn kind(
        &mut self,
        header: &Header<'_>,
        extended: &Extended,
        path: &[u8],
        link: Vec<u8>,
        stored: u64,
    ) -> Result<Kind, ArchiveError> {
        let at = Where {
            offset: header.place().offset,
            path,
        };
        let target = |link: Vec<u8>, most| {
            check_path(&link, "the link's target", most, at)?;
            Ok(link)
        };
        let most = self.limits.path_bytes;
        // What has no data may state a size all the same: POSIX gives it to links; others say the size of a directory.
        // Only where data follows is it skipped: for hard links in pax archives, as GNU tar and libarchive do it.
        let kind = match header.typeflag() {
            // v7 has no type for directories.
            b'0' | 0 | b'7' if path.ends_with(b"/") && !extended.sparse.is_some() => {
                if stored > 0 && header.typeflag() != 0 {
                    // Go's reader sees a file there and GNU tar's a directory.
                    return Err(at.path("the path", "is that of a directory, with a file's data"));
                }
                Kind::Directory
            }
            b'0' | 0 | b'7' if extended.sparse.is_some() => return self.pax_sparse(extended, stored, at),
            b'0' | 0 | b'7' => {
                self.expect_data(stored);
                Kind::File {
                    size: stored,
                    segments: None,
                }
            }
            b'S' if header.is_gnu() => return self.gnu_sparse(header, stored, at),
            b'1' => {
                if extended.size.is_some_and(|size| size > 0) {
                    self.expect_data(stored);
                }
                Kind::HardLink {
                    target: target(link, most)?,
                }
            }
            b'2' => Kind::Symlink {
                target: target(link, most)?,
            },
            b'3' | b'4' => {
                let (major, minor) = header.device()?;
                if header.typeflag() == b'3' {
                    Kind::CharacterDevice { major, minor }
                } else {
                    Kind::BlockDevice { major, minor }
                }
            }
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            typeflag => {
                return Err(ArchiveError::Type {
                    place: at.place(),
                    typeflag,
                });
            }
        };
        Ok(kind)
    }

    fn gnu_sparse(&mut self, header: &Header<'_>, stored: u64, at: Where<'_>) -> Result<Kind, ArchiveError> {
        let (mut map, size, mut more) = Map::start(header.block(), at)?;
        while more {
            let block = self.block("the map of a sparse file")?;
            more = map.go_on(&block, at)?;
            if map.len() > self.limits.segments {
                return Err(at.limit("segments of a sparse file", self.limits.segments as u64));
            }
        }
        let segments = map.segments(size, stored, at)?;
        self.sparse_file(size, segments, stored, at)
    }

    fn pax_sparse(&mut self, extended: &Extended, stored: u64, at: Where<'_>) -> Result<Kind, ArchiveError> {
        let size = extended
            .sparse
            .real_size
            .ok_or_else(|| at.sparse("its real size is missing"))?;
        if extended.sparse.major.unwrap_or(0) == 0 {
            let segments = sparse::segments(&extended.sparse.map, size, stored, at)?;
            return self.sparse_file(size, segments, stored, at);
        }
        if extended.sparse.major != Some(1) {
            return Err(at.sparse("its version is unknown"));
        }
        let mut lines = Lines::default();
        let mut left = stored;
        let numbers = loop {
            left = left
                .checked_sub(BLOCK_BYTES as u64)
                .ok_or_else(|| at.sparse("its map is longer than all of it"))?;
            let block = self.block("the map of a sparse file")?;
            if let Some(numbers) = lines.block(&block, self.limits.segments, at)? {
                break numbers;
            }
        };
        let segments = sparse::segments(&numbers, size, left, at)?;
        self.sparse_file(size, segments, left, at)
    }

    fn sparse_file(
        &mut self,
        size: i64,
        segments: Vec<Segment>,
        stored: u64,
        at: Where<'_>,
    ) -> Result<Kind, ArchiveError> {
        // Negative sizes were refused with the map.
        let size = u64::try_from(size).unwrap_or_default();
        if size > self.limits.file_bytes {
            return Err(at.limit("bytes of a file", self.limits.file_bytes));
        }
        self.expect_data(stored);
        Ok(Kind::File {
            size,
            segments: Some(segments),
        })
    }

    pub(super) fn expect_data(&mut self, length: u64) {
        self.data_left = length;
        self.padding = length.next_multiple_of(BLOCK_BYTES as u64) - length;
    }
}

fn check_path(path: &[u8], field: &'static str, most: usize, at: Where<'_>) -> Result<(), ArchiveError> {
    let reason = if path.is_empty() {
        "is empty"
    } else if path.contains(&0) {
        "has a NUL byte"
    } else if path.len() > most {
        return Err(at.limit("bytes of a path", most as u64));
    } else {
        return Ok(());
    };
    Err(at.path(field, reason))
}
