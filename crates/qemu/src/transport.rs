//! Streams between host and guest.

use std::{io, path::PathBuf};

use async_trait::async_trait;
use cofferdam_backend::{BoxListener, BoxStream, Listener};
use cofferdam_vsock::{VhostUserVsock, VsockListener};

use crate::config::VsockDevice;

/// What carries a VM's streams.
pub(crate) struct Transport {
    device: Option<(VhostUserVsock, PathBuf)>,
}

impl Transport {
    pub(crate) fn new(device: VsockDevice, socket: PathBuf, guest_cid: u64) -> io::Result<Self> {
        let device = match device {
            VsockDevice::VhostUser => {
                let device = VhostUserVsock::bind(&socket, guest_cid).map_err(io::Error::other)?;
                Some((device, socket))
            }
            VsockDevice::None => None,
        };
        Ok(Self { device })
    }

    /// The vhost-user device's socket, for the command line.
    pub(crate) fn socket(&self) -> Option<PathBuf> {
        self.device.as_ref().map(|(_, socket)| socket.clone())
    }

    /// Listens on a port of the host.
    pub(crate) async fn listen(&self, port: u32) -> io::Result<BoxListener> {
        let (device, _) = self.device.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let listener = device.listen(port).map_err(io::Error::other)?;
        Ok(Box::new(Streams(listener)))
    }
}

/// A port's listener, as every backend has them.
struct Streams(VsockListener);

#[async_trait]
impl Listener for Streams {
    async fn accept(&mut self) -> io::Result<BoxStream> {
        Ok(Box::new(self.0.accept().await?))
    }
}
