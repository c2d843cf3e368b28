//! Copying between a process and the host (GCS bridge protocol §8).
//!
//! Output is copied to its end, the stream is half-closed, and the host's own close is awaited for a bounded time.
//! Nothing that the host goes on reading is cut off. Input is copied until the host half-closes or the process ends.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
    net::{Shutdown, shutdown},
};

/// Bytes moved at once.
const CHUNK_BYTES: usize = 32 * 1024;
/// How long the host may take to close its end of an output stream.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// After the process has ended, output that stays silent this long is held open by a stranger (a daemon the process
/// left behind) and is not waited for.
const SILENCE_LIMIT: Duration = Duration::from_secs(2);

/// Tells relays that their process has ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended(Arc<OwnedFd>);

impl Ended {
    /// A process that still runs.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?)))
    }

    /// Tells them. It cannot be taken back.
    pub(crate) fn set(&self) {
        // The counter cannot overflow: it is set once for each process.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

/// What becomes of output that the host has stopped reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The pipe breaks, as it does for a program whose reader on this system has gone.
    Breaks,
    /// It is thrown away: a console has no broken pipe, and its other direction goes on.
    IsDiscarded,
}

/// Starts copying `from` (a pipe or console of the process) to `to` (a stream, or nowhere), then calls `done`.
pub(crate) fn output(
    from: Arc<OwnedFd>,
    to: Option<OwnedFd>,
    unread: Unread,
    ended: Ended,
    done: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    spawn("stdout relay", move || {
        copy_output(&from, to.as_ref(), unread, &ended);
        drop(from);
        if let Some(to) = to {
            finish(&to);
        }
        done();
    })
}

/// Starts copying `from` (a stream) to `to`. A console gets end-of-transmission where a pipe is closed.
pub(crate) fn input(from: OwnedFd, to: Arc<OwnedFd>, console: bool, ended: Ended) -> io::Result<()> {
    spawn("stdin relay", move || {
        let last = copy_input(&from, &to, &ended);
        if console {
            // Ctrl-D: only a program that reads whole lines takes it as the end. After part of a line the first one
            // only hands that part over.
            let ends = if matches!(last, None | Some(b'\n' | b'\r' | 0x04)) {
                &b"\x04"[..]
            } else {
                b"\x04\x04"
            };
            let _ = rustix::io::write(&*to, ends);
        }
    })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.into())
        .stack_size(super::STACK_BYTES)
        .spawn(body)?;
    Ok(())
}

fn copy_output(from: &OwnedFd, to: Option<&OwnedFd>, unread: Unread, ended: &Ended) {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut sink = to;
    let mut has_ended = false;
    loop {
        match readable(
            from,
            (!has_ended).then_some(ended),
            has_ended.then_some(SILENCE_LIMIT),
        ) {
            Ready::Data => {}
            Ready::Ended => {
                has_ended = true;
                continue;
            }
            Ready::TimedOut => return,
        }
        let length = match rustix::io::read(from, &mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            // A console whose last holder closed it says EIO.
            Err(_) => return,
        };
        if let Some(stream) = sink
            && write_all(stream, &buffer[..length]).is_err()
        {
            match unread {
                Unread::Breaks => return,
                Unread::IsDiscarded => sink = None,
            }
        }
    }
}

/// Half-closes, and waits until the host has closed too: then everything has arrived.
fn finish(stream: &OwnedFd) {
    if shutdown(stream, Shutdown::Write).is_err() {
        return;
    }
    let mut byte = [0];
    if matches!(readable(stream, None, Some(CLOSE_LIMIT)), Ready::Data) {
        let _ = rustix::io::read(stream, &mut byte);
    }
}

/// Copies until an end; returns the last byte that was taken.
fn copy_input(from: &OwnedFd, to: &OwnedFd, ended: &Ended) -> Option<u8> {
    // A write must end with the process. That of a terminal nobody reads would wait for ever, and so would that of a
    // pipe whose other end somebody else still holds.
    let nonblocking = fcntl_getfl(to).and_then(|flags| fcntl_setfl(to, flags | OFlags::NONBLOCK));
    if nonblocking.is_err() {
        return None;
    }
    let mut last = None;
    let mut buffer = vec![0; CHUNK_BYTES];
    while matches!(readable(from, Some(ended), None), Ready::Data) {
        let length = match rustix::io::read(from, &mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(_) => break,
        };
        if !write_until_ended(to, &buffer[..length], ended) {
            break;
        }
        last = Some(buffer[length - 1]);
    }
    last
}

/// Writes to a descriptor that does not block. `false` if it broke, or the process ended before all was taken.
fn write_until_ended(to: &OwnedFd, mut bytes: &[u8], ended: &Ended) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut watched = [
                    PollFd::new(to, PollFlags::OUT),
                    PollFd::from_borrowed_fd(ended.0.as_fd(), PollFlags::IN),
                ];
                match poll(&mut watched, None) {
                    Ok(_) if watched[1].revents().is_empty() => {}
                    Err(Errno::INTR) => {}
                    _ => return false,
                }
            }
            Err(_) => return false,
        }
    }
    true
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Ready {
    /// Something can be read, the end included.
    Data,
    Ended,
    TimedOut,
}

fn readable(stream: &OwnedFd, ended: Option<&Ended>, limit: Option<Duration>) -> Ready {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    loop {
        let mut watched = vec![PollFd::new(stream, PollFlags::IN)];
        if let Some(ended) = ended {
            watched.push(PollFd::from_borrowed_fd(ended.0.as_fd(), PollFlags::IN));
        }
        match poll(&mut watched, limit.as_ref()) {
            Ok(0) => return Ready::TimedOut,
            Ok(_) if !watched[0].revents().is_empty() => return Ready::Data,
            Ok(_) => return Ready::Ended,
            Err(Errno::INTR) => {}
            Err(_) => return Ready::TimedOut,
        }
    }
}

/// Reads what is in a pipe now, without waiting for more.
pub(crate) fn drain_now(pipe: OwnedFd, limit_bytes: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let mut file = File::from(pipe);
    let mut buffer = [0; 4096];
    while text.len() < limit_bytes {
        let mut watched = [PollFd::new(&file, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match poll(&mut watched, Some(&now)) {
            Ok(1) => {}
            _ => break,
        }
        match file.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
        }
    }
    let _ = file.flush();
    text
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, sync::mpsc, time::Instant};

    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        let (reader, writer) = io::pipe().unwrap();
        (reader.into(), writer.into())
    }

    #[test]
    fn output_is_complete_however_slowly_the_host_reads_after_the_end() {
        let (reader, writer) = pipe();
        let (guest, mut host) = UnixStream::pair().unwrap();
        let (sender, done) = mpsc::channel();
        let ended = Ended::new().unwrap();
        output(
            Arc::new(reader),
            Some(guest.into()),
            Unread::Breaks,
            ended.clone(),
            move || sender.send(()).unwrap(),
        )
        .unwrap();
        let data: Vec<u8> = (0..700_000_u32).map(|n| n as u8).collect();
        let sent = data.clone();
        let writing = thread::spawn(move || write_all(&writer, &sent).unwrap());
        ended.set();
        let mut got = Vec::new();
        let mut buffer = [0; 60_000];
        loop {
            thread::sleep(Duration::from_millis(20));
            match host.read(&mut buffer).unwrap() {
                0 => break,
                length => got.extend_from_slice(&buffer[..length]),
            }
        }
        assert!(got == data);
        writing.join().unwrap();
        assert!(done.try_recv().is_err(), "the host has not closed yet");
        drop(host);
        done.recv_timeout(Duration::from_secs(4)).unwrap();
    }

    #[test]
    fn a_stranger_holding_the_pipe_does_not_hold_the_end() {
        let (reader, writer) = pipe();
        let (guest, host) = UnixStream::pair().unwrap();
        drop(host);
        let (sender, done) = mpsc::channel();
        let ended = Ended::new().unwrap();
        output(
            Arc::new(reader),
            Some(guest.into()),
            Unread::Breaks,
            ended.clone(),
            move || sender.send(()).unwrap(),
        )
        .unwrap();
        ended.set();
        let start = Instant::now();
        done.recv_timeout(Duration::from_secs(8)).unwrap();
        assert!(start.elapsed() >= SILENCE_LIMIT);
        drop(writer);
    }

    #[test]
    fn a_host_that_went_away_breaks_a_pipe_and_is_nothing_to_a_console() {
        for (unread, outcome) in [(Unread::Breaks, Err(Errno::PIPE)), (Unread::IsDiscarded, Ok(()))] {
            let (reader, writer) = pipe();
            let (guest, host) = UnixStream::pair().unwrap();
            drop(host);
            let (sender, done) = mpsc::channel();
            output(
                Arc::new(reader),
                Some(guest.into()),
                unread,
                Ended::new().unwrap(),
                move || sender.send(()).unwrap(),
            )
            .unwrap();
            assert_eq!(write_all(&writer, &vec![7; 1 << 20]), outcome);
            drop(writer);
            done.recv_timeout(Duration::from_secs(8)).unwrap();
        }
    }

    #[test]
    fn the_hosts_half_close_is_the_end_of_input() {
        let (reader, writer) = pipe();
        let (guest, mut host) = UnixStream::pair().unwrap();
        input(guest.into(), Arc::new(writer), false, Ended::new().unwrap()).unwrap();
        host.write_all(b"to the end").unwrap();
        host.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "to the end");
    }

    #[test]
    fn a_half_close_ends_the_lines_of_a_console_whatever_came_last() {
        for (typed, read) in [
            ("", ""),
            ("a line\n", "a line\n"),
            ("part of a line", "part of a line"),
        ] {
            let (agent, process) = crate::process::stdio::console().unwrap();
            // Held, as by the output's relay: a console that is closed ends in another way.
            let agent = Arc::new(agent);
            let (guest, mut host) = UnixStream::pair().unwrap();
            input(guest.into(), Arc::clone(&agent), true, Ended::new().unwrap()).unwrap();
            host.write_all(typed.as_bytes()).unwrap();
            host.shutdown(std::net::Shutdown::Write).unwrap();
            let (sender, text) = mpsc::channel();
            thread::spawn(move || {
                let mut text = String::new();
                File::from(process).read_to_string(&mut text).unwrap();
                sender.send(text).unwrap();
            });
            assert_eq!(
                text.recv_timeout(Duration::from_secs(5)).unwrap(),
                read,
                "{typed:?}"
            );
        }
    }

    #[test]
    fn input_that_nobody_reads_ends_with_the_process() {
        let (agent, process) = crate::process::stdio::console().unwrap();
        let raw = rustix::termios::tcgetattr(&process).map(|mut settings| {
            settings.make_raw();
            rustix::termios::tcsetattr(&process, rustix::termios::OptionalActions::Now, &settings)
        });
        raw.unwrap().unwrap();
        let (pipe_reader, pipe_writer) = pipe();
        for (to, console) in [(agent, true), (pipe_writer, false)] {
            let (guest, mut host) = UnixStream::pair().unwrap();
            let ended = Ended::new().unwrap();
            input(guest.into(), Arc::new(to), console, ended.clone()).unwrap();
            host.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            let full = host.write_all(&vec![b'x'; 8 << 20]).unwrap_err().kind();
            assert_eq!(full, io::ErrorKind::WouldBlock, "console: {console}");
            ended.set();
            host.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
            let closed = host.write_all(&vec![b'x'; 8 << 20]).unwrap_err().kind();
            // Which of the two depends on whether bytes were on their way.
            assert!(
                matches!(closed, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset),
                "console: {console}: {closed:?}"
            );
        }
        drop((process, pipe_reader));
    }

    #[test]
    fn input_stops_when_the_process_ends() {
        let (reader, writer) = pipe();
        let (guest, mut host) = UnixStream::pair().unwrap();
        let ended = Ended::new().unwrap();
        input(guest.into(), Arc::new(writer), false, ended.clone()).unwrap();
        ended.set();
        host.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
        assert_eq!(host.read(&mut [0]).unwrap(), 0, "the guest closed its end");
        drop(reader);
    }
}
