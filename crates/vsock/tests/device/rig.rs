//! A device, its socket, and the host's side of it without a runtime in the way.

use std::{io::Read, os::unix::net::UnixStream, path::PathBuf, sync::mpsc, time::Duration};

use cofferdam_vsock::{VhostUserVsock, VsockListener};

use crate::{
    driver::{Driver, LIMIT},
    guest::{GUEST_CID, Guest, PORT},
};

pub(crate) struct Rig {
    runtime: tokio::runtime::Runtime,
    pub(crate) device: VhostUserVsock,
    pub(crate) listener: VsockListener,
    pub(crate) socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("vsock");
        let device = VhostUserVsock::bind(&socket, GUEST_CID).unwrap();
        let listener = device.listen(PORT).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            runtime,
            device,
            listener,
            socket,
            _dir: dir,
        }
    }

    pub(crate) fn driver(&self) -> Driver {
        Driver::start(&self.socket, true)
    }

    /// A guest with one stream, and the host's end of it, which blocks but not for ever.
    pub(crate) fn connect(&mut self) -> (Guest, UnixStream) {
        let guest = Guest::dial(self.driver(), 7);
        (guest, self.accept())
    }

    pub(crate) fn accept(&mut self) -> UnixStream {
        self.try_accept().unwrap()
    }

    pub(crate) fn try_accept(&mut self) -> std::io::Result<UnixStream> {
        let stream = self.runtime.block_on(async {
            tokio::time::timeout(LIMIT, self.listener.accept())
                .await
                .expect("nothing to accept")
        })?;
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(stream)
    }
}

/// Runs something that might hang.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || done.send(run()));
    finished
        .recv_timeout(limit)
        .unwrap_or_else(|error| panic!("{what}: {error} after {limit:?}"))
}

/// Everything up to the end.
pub(crate) fn read_to_end(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Bytes that differ from their neighbours.
pub(crate) fn pattern(seed: u32, length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8 ^ at as u8 ^ seed as u8)
        .collect()
}
