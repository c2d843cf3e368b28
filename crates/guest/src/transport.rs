//! Streams to the host: vsock in the VM, unix sockets in a directory when the agent is tested as a plain process.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    thread,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};

/// The host's vsock context id.
const HOST_CID: u32 = 2;
/// Dials that time out are repeated this often (GCS bridge protocol §1).
const DIAL_TRIES: u32 = 10;
/// Pause between dials.
pub(crate) const DIAL_INTERVAL: Duration = Duration::from_millis(100);

/// How to reach a port of the host.
#[derive(Debug, Clone)]
pub(crate) enum Dialer {
    /// A real VM.
    Vsock,
    /// `DIRECTORY/<port>` unix sockets; for tests.
    Directory(PathBuf),
}

impl Dialer {
    /// One connection to `port`. Only a time-out is retried; anything else is final.
    pub(crate) fn dial(&self, port: u32) -> io::Result<OwnedFd> {
        let mut tries = 1;
        loop {
            match self.dial_once(port) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut && tries < DIAL_TRIES => {
                    tries += 1;
                    thread::sleep(DIAL_INTERVAL);
                }
                outcome => return outcome,
            }
        }
    }

    fn dial_once(&self, port: u32) -> io::Result<OwnedFd> {
        match self {
            Self::Vsock => {
                let stream = socket(
                    AddressFamily::Vsock,
                    SockType::Stream,
                    SockFlag::SOCK_CLOEXEC,
                    None,
                )?;
                connect(stream.as_raw_fd(), &VsockAddr::new(HOST_CID, port))?;
                Ok(stream)
            }
            Self::Directory(directory) => Ok(UnixStream::connect(directory.join(port.to_string()))?.into()),
        }
    }
}
