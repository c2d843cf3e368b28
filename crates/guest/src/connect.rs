//! `connect ADDRESS…`: a TCP connection of the VM's, relayed to standard input and output.
//!
//! The host runs this program as a process of the VM's own, and leads somebody's connection to it. The addresses are tried
//! in turn. Ends pass in both directions: that of the input becomes the connection's, and that of the connection the
//! output's. What goes wrong, a refusal or a reset, is said on standard error *before* the output ends, so that the host
//! does not take a connection that broke for one that ended.

use std::{
    ffi::OsString,
    io,
    net::{SocketAddr, TcpStream},
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    process::ExitCode,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
    net::{Shutdown, shutdown, sockopt},
    stdio,
};

/// The argument that makes this program one connection.
pub(crate) const CONNECT: &str = "connect";

/// For a service of the VM's own to take a connection.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// For the host to close its end of a stream, which says that it has everything.
const CLOSE_LIMIT: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};
/// Bytes under way in each direction.
const CHUNK_BYTES: usize = 64 * 1024;

/// How a connection went that did not end as it should.
enum Broken {
    /// The host let go of it: there is nobody to tell.
    Abandoned,
    Failed(String),
}

/// Relays until both directions have ended.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match connected(arguments).and_then(|stream| relay(&stream)) {
        Ok(()) => {
            closed_by_host(stdio::stdout());
            ExitCode::SUCCESS
        }
        Err(Broken::Abandoned) => ExitCode::FAILURE,
        Err(Broken::Failed(why)) => {
            // Whoever does not listen has gone.
            let _ = rustix::io::write(stdio::stderr(), why.as_bytes());
            if shutdown(stdio::stderr(), Shutdown::Write).is_ok() {
                closed_by_host(stdio::stderr());
            }
            ExitCode::FAILURE
        }
    }
}

fn connected(arguments: impl Iterator<Item = OsString>) -> Result<TcpStream, Broken> {
    let mut refusals = Vec::new();
    for argument in arguments {
        let text = argument.to_string_lossy();
        let address: SocketAddr = text
            .parse()
            .map_err(|_| Broken::Failed(format!("{text}: it is not ADDRESS:PORT")))?;
        match TcpStream::connect_timeout(&address, DIAL_LIMIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => refusals.push(format!("{address}: {error}")),
        }
    }
    Err(Broken::Failed(match refusals.is_empty() {
        true => "no address is given".to_owned(),
        false => refusals.join("; "),
    }))
}

/// Waits until the host has closed its end, which sends nothing.
fn closed_by_host(stream: BorrowedFd<'_>) {
    let mut watched = [PollFd::from_borrowed_fd(stream, PollFlags::IN)];
    while matches!(poll(&mut watched, Some(&CLOSE_LIMIT)), Err(Errno::INTR)) {}
}

/// One direction.
struct Way<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    buffer: Vec<u8>,
    pending: Range<usize>,
    /// Nothing more comes.
    ended: bool,
    /// Nothing more is sent: the end has been passed on, or nobody takes anything.
    closed: bool,
}

impl<'a> Way<'a> {
    fn new(from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Self {
        Self {
            from,
            to,
            buffer: vec![0; CHUNK_BYTES],
            pending: 0..0,
            ended: false,
            closed: false,
        }
    }

    fn wants_input(&self) -> bool {
        self.pending.is_empty() && !self.ended && !self.closed
    }

    fn wants_output(&self) -> bool {
        !self.pending.is_empty() && !self.closed
    }

    fn read(&mut self) -> Result<(), Errno> {
        match rustix::io::read(self.from, &mut self.buffer) {
            Ok(0) => self.ended = true,
            Ok(length) => self.pending = 0..length,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes what is pending, and passes the end on behind it.
    fn write(&mut self) -> Result<(), Errno> {
        while !self.pending.is_empty() {
            match rustix::io::write(self.to, &self.buffer[self.pending.clone()]) {
                Ok(length) => self.pending.start += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if self.ended && !self.closed {
            self.closed = true;
            match shutdown(self.to, Shutdown::Write) {
                // The other side has closed altogether, and that is its end too.
                Ok(()) | Err(Errno::NOTCONN) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn gives_up(&mut self) {
        self.pending = 0..0;
        self.closed = true;
    }
}

fn relay(stream: &TcpStream) -> Result<(), Broken> {
    let service = stream.as_fd();
    relay_between(stdio::stdin(), stdio::stdout(), service)
}

fn relay_between(
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    service: BorrowedFd<'_>,
) -> Result<(), Broken> {
    let failed = |error: Errno| Broken::Failed(io::Error::from(error).to_string());
    for stream in [input, output, service] {
        let nonblocking = fcntl_getfl(stream).and_then(|flags| fcntl_setfl(stream, flags | OFlags::NONBLOCK));
        nonblocking.map_err(failed)?;
    }
    let (mut up, mut down) = (Way::new(input, service), Way::new(service, output));
    // Why the service takes nothing more; what it has sent before is still handed on.
    let mut deaf = None;
    while !(up.closed && down.closed) {
        let ready = Ready::wait(&up, &down).map_err(failed)?;
        if ready.abandoned {
            reset(service);
            return Err(Broken::Abandoned);
        }
        if ready.service_failed && down.closed {
            let error = sockopt::socket_error(service).ok().and_then(Result::err);
            return Err(failed(error.unwrap_or(Errno::CONNRESET)));
        }
        if ready.input && up.read().is_err() {
            reset(service);
            return Err(Broken::Abandoned);
        }
        if let Err(error) = up.write() {
            deaf = Some(error);
            up.gives_up();
        }
        if ready.service {
            down.read().map_err(|error| failed(deaf.unwrap_or(error)))?;
        }
        if down.write().is_err() {
            reset(service);
            return Err(Broken::Abandoned);
        }
    }
    match deaf {
        // What was sent to it did not arrive.
        Some(error) => Err(failed(error)),
        None => Ok(()),
    }
}

/// Has the connection end as one that broke, once it is closed.
fn reset(service: BorrowedFd<'_>) {
    let _ = sockopt::set_socket_linger(service, Some(Duration::ZERO));
}

/// What can be done.
#[derive(Default)]
struct Ready {
    input: bool,
    service: bool,
    /// The service's connection broke.
    service_failed: bool,
    /// The host closed its end of the output before it was told that it is one.
    abandoned: bool,
}

impl Ready {
    fn wait(up: &Way<'_>, down: &Way<'_>) -> Result<Self, Errno> {
        let (mut watched, mut parts) = (Vec::with_capacity(3), Vec::with_capacity(3));
        let mut watch = |part, stream, flags| {
            watched.push(PollFd::from_borrowed_fd(stream, flags));
            parts.push(part);
        };
        if up.wants_input() {
            watch(Part::Input, up.from, PollFlags::IN);
        }
        let of_service = flags(down.wants_input(), up.wants_output());
        // That a connection broke is always told. While its last bytes wait for the host there is nothing to do about it.
        if !of_service.is_empty() || down.closed {
            watch(Part::Service, down.from, of_service);
        }
        if !down.closed {
            // The host sends nothing there: what can be read is that it has closed.
            watch(Part::Output, down.to, flags(true, down.wants_output()));
        }
        while let Err(error) = poll(&mut watched, None) {
            if error != Errno::INTR {
                return Err(error);
            }
        }
        let mut ready = Self::default();
        let broken = PollFlags::HUP | PollFlags::ERR;
        for (part, seen) in parts.into_iter().zip(watched.iter().map(PollFd::revents)) {
            match part {
                Part::Input => ready.input = !seen.is_empty(),
                Part::Service => {
                    ready.service = down.wants_input() && seen.intersects(PollFlags::IN | broken);
                    ready.service_failed = seen.intersects(broken);
                }
                Part::Output => ready.abandoned = seen.intersects(PollFlags::IN | broken),
            }
        }
        Ok(ready)
    }
}

#[derive(Clone, Copy)]
enum Part {
    Input,
    Service,
    Output,
}

fn flags(input: bool, output: bool) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, input);
    flags.set(PollFlags::OUT, output);
    flags
}
