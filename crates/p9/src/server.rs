//! One connection's stream: frames in, requests to blocking threads, replies out.

use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

use crate::{
    P9Error,
    buffer::{Buffer, Buffers},
    export::Exports,
    flight::Flight,
    ops,
    session::Session,
    wire::{self, HEADER_BYTES, Reply, Request, Text},
};

/// The smallest size of a message that can be agreed on: one directory entry and every other reply fit.
pub(crate) const MIN_MSIZE: u32 = 512;
/// The largest message before one is agreed on: a Tversion with room to spare.
const FIRST_FRAME: u32 = 8192;
/// Buffer between stream and frames; larger frames go around it.
const STREAM_BUFFER: usize = 16 * 1024;

/// Limits on what one client can make the server do and hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// The largest message in bytes that the server agrees to; it is raised to 512 if smaller.
    pub max_msize: u32,
    /// The most fids of a connection. Each holds one file descriptor of the host, an open one two.
    pub max_fids: usize,
    /// The most requests of a connection carried out at the same time; further ones wait in the stream. A connection
    /// takes at most twice this many messages of memory.
    pub max_in_flight: usize,
    /// Whether a client may create block and character device nodes on the host. Without it, `EPERM`, except for
    /// the 0/0 character device that overlays use as a whiteout.
    pub allow_device_nodes: bool,
}

impl Default for ServerOptions {
    /// 1 MiB messages, 65,536 fids, 64 requests at the same time, no device nodes.
    fn default() -> Self {
        Self {
            max_msize: 1 << 20,
            max_fids: 1 << 16,
            max_in_flight: 64,
            allow_device_nodes: false,
        }
    }
}

/// Raises the process's limit on open files as far as it may, and returns the limit. Every fid takes one or two, so a
/// process that serves should do this first.
///
/// # Errors
/// The system refuses.
pub fn raise_file_limit() -> Result<u64, P9Error> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .map_err(|errno| P9Error::FileLimit(errno.into()))?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Serves exports over streams.
#[derive(Debug, Clone)]
pub struct Server {
    exports: Arc<Exports>,
    options: ServerOptions,
}

impl Server {
    /// A server of these exports.
    pub fn new(exports: Arc<Exports>, options: ServerOptions) -> Self {
        let max_msize = options.max_msize.max(MIN_MSIZE);
        let max_in_flight = options
            .max_in_flight
            .clamp(1, Semaphore::MAX_PERMITS.min(usize::from(u16::MAX)));
        Self {
            exports,
            options: ServerOptions {
                max_msize,
                max_in_flight,
                ..options
            },
        }
    }

    /// Serves one connection until the client closes it. Needs a tokio runtime, on whose blocking threads the file
    /// operations run. When it returns, everything that the connection had opened is closed; when it is dropped, as
    /// soon as the requests being carried out have ended.
    ///
    /// # Errors
    /// The stream failed, the client broke the framing, or an export it uses was withdrawn.
    pub async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin>(&self, stream: S) -> Result<(), P9Error> {
        let (replies, outgoing) = mpsc::unbounded_channel();
        let connection = Arc::new(Connection {
            session: Session::new(Arc::clone(&self.exports), self.options.clone()),
            flight: Mutex::default(),
            places: Arc::new(Semaphore::new(self.options.max_in_flight)),
            buffers: Buffers::new(self.options.max_msize as usize),
        });
        let _close = CloseOnDrop(Arc::clone(&connection));
        let (from, to) = tokio::io::split(stream);
        let result = tokio::select! {
            result = async {
                tokio::try_join!(connection.read(from, replies), write(to, outgoing)).map(|_| ())
            } => result,
            () = connection.session.withdrawn() => Err(P9Error::Withdrawn),
        };
        connection.close();
        connection.idle().await;
        connection.session.restart(0);
        result
    }
}

/// A reply and the place of its request, which is free again once the reply is written.
type Outgoing = (Buffer, OwnedSemaphorePermit);
type Replies = mpsc::UnboundedSender<Outgoing>;

#[derive(Debug)]
struct Connection {
    session: Arc<Session>,
    flight: Mutex<Flight<OwnedSemaphorePermit>>,
    /// One permit for each request that may be under way.
    places: Arc<Semaphore>,
    buffers: Arc<Buffers>,
}

/// Closes the connection's fids even if serving it is given up half way.
struct CloseOnDrop(Arc<Connection>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Connection {
    /// Reads frames until the client closes its side.
    async fn read<R: AsyncRead + Unpin>(self: &Arc<Self>, from: R, replies: Replies) -> Result<(), P9Error> {
        let mut from = BufReader::with_capacity(STREAM_BUFFER, from);
        while let Some(frame) = self.next_frame(&mut from).await? {
            let (kind, tag) = wire::header(&frame).map_err(P9Error::Frame)?;
            tracing::trace!(kind, tag, bytes = frame.len(), "9P request");
            // The two messages about other messages are answered here; all others go to a thread.
            match Request::parse(&frame) {
                Ok((_, Request::Version { msize, version })) => {
                    let msize = self.restart(msize, version).await;
                    let version = if msize == 0 {
                        wire::VERSION_UNKNOWN
                    } else {
                        wire::VERSION
                    };
                    let msize = if msize == 0 {
                        self.session.options().max_msize
                    } else {
                        msize
                    };
                    let reply = Reply::Version {
                        msize,
                        version: Text(version),
                    };
                    send(&replies, self.encode(tag, &reply), self.place().await);
                }
                Ok((_, Request::Flush { oldtag })) => {
                    let place = self.place().await;
                    let mut flight = self.flight();
                    if !flight.add(tag) {
                        return Err(P9Error::DuplicateTag(tag));
                    }
                    if let Some(place) = flight.flush(tag, oldtag, place) {
                        send(&replies, self.encode(tag, &Reply::Flush {}), place);
                        self.end(&mut flight, tag, &replies);
                    }
                }
                _ => {
                    let place = self.place().await;
                    if !self.flight().add(tag) {
                        return Err(P9Error::DuplicateTag(tag));
                    }
                    let connection = Arc::clone(self);
                    let replies = replies.clone();
                    tokio::task::spawn_blocking(move || connection.perform(tag, frame, place, &replies));
                }
            }
        }
        Ok(())
    }

    /// The next frame, of a size that was agreed on; none at the end of the stream.
    async fn next_frame<R: AsyncRead + Unpin>(
        &self,
        from: &mut BufReader<R>,
    ) -> Result<Option<Buffer>, P9Error> {
        let stream = |source| P9Error::Stream {
            action: "reading a request",
            source,
        };
        let mut size = [0; 4];
        if from.read(&mut size[..1]).await.map_err(stream)? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut size[1..]).await.map_err(stream)?;
        let said = u32::from_le_bytes(size);
        let least = HEADER_BYTES as u32;
        let most = match self.session.msize() {
            0 => FIRST_FRAME,
            msize => msize,
        };
        if !(least..=most).contains(&said) {
            return Err(P9Error::FrameSize { said, least, most });
        }
        let mut frame = self.buffers.take(said as usize);
        frame[..4].copy_from_slice(&size);
        from.read_exact(&mut frame[4..]).await.map_err(stream)?;
        Ok(Some(frame))
    }

    /// Tversion: ends everything before it, and agrees on a size of messages, or on nothing (0).
    async fn restart(&self, msize: u32, version: Text<'_>) -> u32 {
        self.flight().cancel_all();
        self.idle().await;
        let version_known = version.0 == wire::VERSION || version.0.starts_with(b"9P2000.L.");
        let msize = if version_known && msize >= MIN_MSIZE {
            msize.min(self.session.options().max_msize)
        } else {
            0
        };
        self.session.restart(msize);
        msize
    }

    /// Carries a request out, on a thread that may block.
    fn perform(&self, tag: u16, frame: Buffer, place: OwnedSemaphorePermit, replies: &Replies) {
        let begun = self.flight().begin(tag);
        let reply = begun.then(|| ops::answer(&self.session, tag, &frame, &self.buffers));
        drop(frame);
        let mut flight = self.flight();
        if let Some(reply) = reply {
            send(replies, reply, place);
        }
        self.end(&mut flight, tag, replies);
    }

    /// Ends a request whose reply is on its way, and answers the flushes that waited for it. The caller holds the
    /// lock, so that nobody else's reply to a reused tag comes in between.
    fn end(&self, flight: &mut Flight<OwnedSemaphorePermit>, tag: u16, replies: &Replies) {
        for (tag, place) in flight.end(tag) {
            send(replies, self.encode(tag, &Reply::Flush {}), place);
        }
    }

    fn encode(&self, tag: u16, reply: &Reply<'_>) -> Buffer {
        ops::encode(tag, reply, &self.buffers)
    }

    async fn place(&self) -> OwnedSemaphorePermit {
        let places = Arc::clone(&self.places);
        places
            .acquire_owned()
            .await
            .expect("invariant: the semaphore is never closed")
    }

    /// Resolves when no request is under way.
    async fn idle(&self) {
        let all = self.session.options().max_in_flight as u32;
        drop(
            self.places
                .acquire_many(all)
                .await
                .expect("invariant: the semaphore is never closed"),
        );
    }

    /// Closes every fid and begins no further request.
    fn close(&self) {
        self.flight().cancel_all();
        self.session.fids().clear();
    }

    fn flight(&self) -> std::sync::MutexGuard<'_, Flight<OwnedSemaphorePermit>> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send(replies: &Replies, reply: Buffer, place: OwnedSemaphorePermit) {
    // If the writing side is gone the connection is ending, and the reply with it.
    let _ = replies.send((reply, place));
}

/// Writes replies until no request can send one any more.
async fn write<W: AsyncWrite + Unpin>(
    to: W,
    mut replies: mpsc::UnboundedReceiver<Outgoing>,
) -> Result<(), P9Error> {
    let stream = |source| P9Error::Stream {
        action: "writing a reply",
        source,
    };
    let mut to = BufWriter::with_capacity(STREAM_BUFFER, to);
    let mut batch = Vec::new();
    while replies.recv_many(&mut batch, 32).await > 0 {
        for (reply, place) in batch.drain(..) {
            to.write_all(&reply).await.map_err(stream)?;
            drop((reply, place));
        }
        to.flush().await.map_err(stream)?;
    }
    to.shutdown().await.map_err(stream)
}
