//! Why an export cannot be added or a connection ends.

use std::{io, path::PathBuf};

use crate::wire::WireError;

/// A failure of the server itself. A request that fails is answered to the client and is none of these.
#[derive(Debug, thiserror::Error)]
pub enum P9Error {
    /// An export of this name exists.
    #[error("an export named {0:?} exists already")]
    DuplicateExport(String),
    /// An allowed name is not the name of an entry: empty, `.`, `..`, or with a slash or NUL.
    #[error("{0:?} cannot be the name of a directory entry")]
    BadAllowedName(std::ffi::OsString),
    /// The directory to export cannot be opened.
    #[error("cannot open {} to export it", path.display())]
    OpenExport {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The stream failed.
    #[error("the 9P connection failed while {action}")]
    Stream {
        /// What was being done.
        action: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The client announced a message that is larger than agreed, or smaller than a header.
    #[error("the client announced a message of {said} bytes; between {least} and {most} were agreed")]
    FrameSize {
        /// The announced size.
        said: u32,
        /// The smallest possible one.
        least: u32,
        /// The largest agreed one.
        most: u32,
    },
    /// A frame whose tag cannot be told, so that no error can be answered.
    #[error("the client sent a frame that is no message")]
    Frame(#[source] WireError),
    /// A request carries the tag of one that is still under way.
    #[error("the client used tag {0} twice at the same time")]
    DuplicateTag(u16),
    /// The export was withdrawn while the connection used it.
    #[error("the export was withdrawn")]
    Withdrawn,
    /// The limit on open files cannot be read or raised.
    #[error("cannot raise the limit on open files")]
    FileLimit(#[source] io::Error),
}
