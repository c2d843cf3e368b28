//! What the agent and its runtime child say to each other: one JSON document each way, with files beside it.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest document.
const DOCUMENT_BYTES: usize = 64 * 1024;
/// Most files beside one document.
const FILES: usize = 3;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Operation {
    /// Create a container. Without a console, three files come beside it: its standard streams.
    Create {
        id: String,
        bundle: PathBuf,
        console: Option<PathBuf>,
    },
    /// Let its first process run.
    Start { id: String },
    /// Run a further process; `process` is a file with the OCI process document. Files as in `Create`.
    Exec {
        id: String,
        process: PathBuf,
        console: Option<PathBuf>,
    },
    /// End it and free everything.
    Delete { id: String },
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Done; `pid` is the process that was left running.
    Done { pid: Option<u32> },
    /// Not done.
    Failed { reason: String },
}

/// Sends a document and files.
pub(super) fn send(stream: &UnixStream, document: &impl Serialize, files: &[&OwnedFd]) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(document)?;
    bytes.push(b'\n');
    let files: Vec<BorrowedFd<'_>> = files.iter().map(|file| file.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many files"));
    }
    let sent = sendmsg(
        stream,
        &[IoSlice::new(&bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    io::Write::write_all(&mut &*stream, &bytes[sent..])
}

/// Takes one read's bytes and the files beside them.
pub(super) fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    bytes.truncate(got.bytes);
    Ok((bytes, files))
}

/// Takes a whole document and its files.
pub(super) fn receive_document<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut document = Vec::new();
    let mut files = Vec::new();
    while !document.ends_with(b"\n") {
        let (bytes, more) = receive(stream)?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        document.extend_from_slice(&bytes);
        files.extend(more);
        if document.len() > DOCUMENT_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the document is too long",
            ));
        }
    }
    Ok((serde_json::from_slice(&document)?, files))
}

/// Takes the child's answer.
pub(super) fn receive_answer(stream: &UnixStream) -> io::Result<Answer> {
    receive_document(stream).map(|(answer, _)| answer)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read};

    use super::*;

    #[test]
    fn documents_and_files_arrive_together() {
        let (agent, child) = UnixStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let operation = Operation::Create {
            id: "x".repeat(9000),
            bundle: "/b".into(),
            console: None,
        };
        send(&agent, &operation, &[&writer.into()]).unwrap();
        let (got, mut files) = receive_document::<Operation>(&child).unwrap();
        assert_eq!(got, operation);
        io::Write::write_all(&mut File::from(files.pop().unwrap()), b"hello").unwrap();
        let mut text = String::new();
        { reader }.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_child_that_dies_is_an_error() {
        let (agent, child) = UnixStream::pair().unwrap();
        drop(child);
        assert_eq!(
            receive_answer(&agent).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
