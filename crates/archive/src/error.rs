//! What can be wrong with an archive.

use std::{fmt, io};

/// Bytes of a path that a message shows: a hostile one may be as long as [`crate::Limits`] lets it.
const SHOWN_BYTES: usize = 200;

/// Why an archive could not be read on. Every variant says where: the entry, and the byte of the decompressed stream.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The input failed: the system, the decompressor, or a limit of its own.
    #[error("could not read the archive {place}: {source}")]
    Read {
        /// Where reading stopped.
        place: Place,
        /// The system's or the decompressor's reason.
        #[source]
        source: io::Error,
    },
    /// The stream ends too early.
    #[error("the archive is cut off {place}: it ends inside {part}")]
    Truncated {
        /// Where the stream ends.
        place: Place,
        /// What is incomplete.
        part: &'static str,
    },
    /// A block that should be a header is none.
    #[error("not a tar header {place}: its checksum field says {stored}, its bytes add up to {computed}")]
    Checksum {
        /// Where the block starts; the entry is the one before it.
        place: Place,
        /// The field, escaped.
        stored: String,
        /// The sum of the block's bytes.
        computed: u32,
    },
    /// One block of zeros with more archive after it: not an end, and what follows would silently be lost.
    #[error("a lone block of zeros {place}: an archive ends with two, or with nothing after one")]
    LoneZeroBlock {
        /// Where the block after the zeros starts.
        place: Place,
    },
    /// A number that is none.
    #[error("bad tar header {place}: {field} is no number: {text}")]
    Number {
        /// Where the header starts.
        place: Place,
        /// The field or record.
        field: &'static str,
        /// What is there, escaped and cut to a readable length.
        text: String,
    },
    /// A number that is one, and cannot be used.
    #[error("bad tar header {place}: {field} {value} is not between 0 and {most}")]
    Range {
        /// Where the header starts.
        place: Place,
        /// The field or record.
        field: &'static str,
        /// Its value.
        value: i128,
        /// The largest one that has a meaning.
        most: u64,
    },
    /// A path, or a link's target, that cannot be one.
    #[error("bad tar header {place}: {field} {reason}")]
    Path {
        /// Where the header starts.
        place: Place,
        /// Which of the two.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An extended header (pax) that does not follow its format.
    #[error("bad extended header {place}: {reason}: {text}")]
    Record {
        /// Where the extended header starts.
        place: Place,
        /// What is wrong with the record.
        reason: &'static str,
        /// How the record starts, escaped.
        text: String,
    },
    /// An extended header or long name without an entry that it belongs to.
    #[error("an extended header without its entry {place}")]
    Stray {
        /// Where the archive ends.
        place: Place,
    },
    /// A sparse file whose map and data disagree.
    #[error("bad sparse file {place}: {reason}")]
    Sparse {
        /// Where the file's header starts.
        place: Place,
        /// What is wrong.
        reason: &'static str,
    },
    /// An entry of a type that image layers do not have.
    #[error("entry of unknown type '{}' {place}", .typeflag.escape_ascii())]
    Type {
        /// Where the header starts.
        place: Place,
        /// The type, as the header has it.
        typeflag: u8,
    },
    /// More than [`crate::Limits`] allows.
    #[error("more than {limit} {what} {place}: refused")]
    Limit {
        /// Where it was noticed.
        place: Place,
        /// What is limited.
        what: &'static str,
        /// The most that is allowed.
        limit: u64,
    },
    /// The archive was read on after one of the other errors: where its next header is, is unknown.
    #[error("the archive could not be read before, and cannot be read on {place}")]
    Failed {
        /// Where it was left.
        place: Place,
    },
}

/// Where in an archive: `at byte 1536, entry "usr/bin/env"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Byte of the decompressed stream.
    pub offset: u64,
    /// The entry's path, escaped and cut to a readable length; `None` before the first.
    pub entry: Option<Box<str>>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}", self.offset)?;
        match &self.entry {
            Some(entry) => write!(f, ", entry \"{entry}\""),
            None => Ok(()),
        }
    }
}

/// A place that costs nothing until there is an error to report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Where<'a> {
    pub(crate) offset: u64,
    pub(crate) path: &'a [u8],
}

impl Where<'_> {
    pub(crate) fn place(self) -> Place {
        Place {
            offset: self.offset,
            entry: (!self.path.is_empty()).then(|| shown(self.path).into_boxed_str()),
        }
    }

    pub(crate) fn number(self, field: &'static str, text: &[u8]) -> ArchiveError {
        ArchiveError::Number {
            place: self.place(),
            field,
            text: shown(text),
        }
    }

    pub(crate) fn range(self, field: &'static str, value: impl Into<i128>, most: u64) -> ArchiveError {
        ArchiveError::Range {
            place: self.place(),
            field,
            value: value.into(),
            most,
        }
    }

    pub(crate) fn path(self, field: &'static str, reason: &'static str) -> ArchiveError {
        ArchiveError::Path {
            place: self.place(),
            field,
            reason,
        }
    }

    pub(crate) fn record(self, reason: &'static str, text: &[u8]) -> ArchiveError {
        ArchiveError::Record {
            place: self.place(),
            reason,
            text: shown(text),
        }
    }

    pub(crate) fn sparse(self, reason: &'static str) -> ArchiveError {
        ArchiveError::Sparse {
            place: self.place(),
            reason,
        }
    }

    pub(crate) fn truncated(self, part: &'static str) -> ArchiveError {
        ArchiveError::Truncated {
            place: self.place(),
            part,
        }
    }

    pub(crate) fn limit(self, what: &'static str, limit: u64) -> ArchiveError {
        ArchiveError::Limit {
            place: self.place(),
            what,
            limit,
        }
    }
}

/// Bytes as a message shows them: on one line, without control characters, of bounded length.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let mut text: String = String::from_utf8_lossy(cut)
        .chars()
        .flat_map(char::escape_debug)
        .collect();
    if cut.len() < bytes.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_shows_is_one_short_line() {
        assert_eq!(shown(b"a\nb\x1b[31m\"\xff"), "a\\nb\\u{1b}[31m\\\"\u{fffd}");
        let long = shown(&[b'x'; 100_000]);
        assert_eq!(long.chars().count(), SHOWN_BYTES + 1);
    }

    #[test]
    fn a_place_without_an_entry_is_only_an_offset() {
        let at = Where { offset: 7, path: b"" };
        assert_eq!(at.place().to_string(), "at byte 7");
        let at = Where { path: b"a", ..at };
        assert_eq!(at.place().to_string(), "at byte 7, entry \"a\"");
    }
}
