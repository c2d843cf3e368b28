//! The guest's part of the tests of real streams: dials CID 2 and does what the host asks for, line by line.
//!
//! `streams CONTROL DATA` dials the port CONTROL for commands, and the port DATA for each stream a command needs. A
//! command is answered with one line, `ok` and a figure or `failed` and the reason. Bytes follow [`pattern`], so that
//! either side knows what the other has to send.
//!
//! | command | what it does |
//! |---|---|
//! | `both BYTES SIZE SEED` | sends and receives at once, in writes of SIZE (0: of any size) |
//! | `send BYTES SIZE SEED` | sends, ends its sending, and waits for the end |
//! | `receive BYTES SIZE SEED PAUSE_US` | reads up to the end, with a pause after each read |
//! | `answer BYTES SEED` | reads up to the end, then sends |
//! | `ask BYTES SEED` | sends and ends its sending, then reads up to the end |
//! | `leave BYTES SEED` | sends, then closes |
//! | `abandon BYTES SEED` | reads so much, then closes |
//! | `persist` | writes until it cannot; the figure is in microseconds from the first write |
//! | `drain` | reads up to the end, whatever comes; the figure is in bytes |
//! | `crowd COUNT BYTES` | that many streams at once, each echoed by the host after its number |
//! | `sequence COUNT` | one stream after another, a byte each way |
//! | `hold COUNT` | opens streams and keeps them until it is killed |

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};

const HOST_CID: u32 = 2;
/// The bytes of a pattern repeat after so many: a prime, so that no power of two hides a shift.
const PERIOD: usize = 1_048_573;
const LARGEST_WRITE: usize = 1 << 20;

fn main() -> io::Result<()> {
    let mut ports = env::args().skip(1).map(|port| number::<u32>(Some(&port)));
    let mut port = || ports.next().unwrap_or_else(|| Err(invalid("a port is missing")));
    let (control, data) = (dial(port()?)?, port()?);
    let mut answers = control.try_clone()?;
    let mut held = Vec::new();
    for line in BufReader::new(control).lines() {
        let answer = match obey(&line?, data, &mut held) {
            Ok(figure) => format!("ok {figure}\n"),
            Err(error) => format!("failed {error}\n"),
        };
        answers.write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

fn number<T: std::str::FromStr>(word: Option<&str>) -> io::Result<T> {
    let parsed = word.and_then(|word| word.parse().ok());
    parsed.ok_or_else(|| invalid("a number is missing"))
}

/// A vsock stream has everything a Unix stream has, and the same calls.
fn dial(port: u32) -> io::Result<UnixStream> {
    let stream = socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    connect(stream.as_raw_fd(), &VsockAddr::new(HOST_CID, port))?;
    Ok(stream.into())
}

fn obey(line: &str, port: u32, held: &mut Vec<UnixStream>) -> io::Result<u128> {
    let mut words = line.split_whitespace();
    let verb = words.next().unwrap_or_default();
    let mut next = || number::<usize>(words.next());
    let begun = Instant::now();
    match verb {
        "both" => both(dial(port)?, next()?, next()?, next()?)?,
        "send" => {
            let mut stream = dial(port)?;
            send(&mut stream, next()?, next()?, next()?)?;
            stream.shutdown(Shutdown::Write)?;
            receive(&mut stream, 0, 1, 0, Duration::ZERO)?;
        }
        "receive" => {
            let mut stream = dial(port)?;
            let (bytes, size, seed) = (next()?, next()?, next()?);
            receive(
                &mut stream,
                bytes,
                size,
                seed,
                Duration::from_micros(next()? as u64),
            )?;
        }
        "answer" => {
            let mut stream = dial(port)?;
            let (bytes, seed) = (next()?, next()?);
            receive(&mut stream, bytes, 65536, seed, Duration::ZERO)?;
            send(&mut stream, bytes, 65536, seed)?;
        }
        "ask" => {
            let mut stream = dial(port)?;
            let (bytes, seed) = (next()?, next()?);
            send(&mut stream, bytes, 65536, seed)?;
            stream.shutdown(Shutdown::Write)?;
            receive(&mut stream, bytes, 65536, seed, Duration::ZERO)?;
        }
        "leave" => send(&mut dial(port)?, next()?, 65536, next()?)?,
        "abandon" => {
            let mut stream = dial(port)?;
            let mut bytes = vec![0; next()?];
            stream.read_exact(&mut bytes)?;
            check(&Pattern::new(next()?), 0, &bytes)?;
        }
        "persist" => {
            let mut stream = dial(port)?;
            let piece = [0; 4096];
            let error = loop {
                if let Err(error) = stream.write_all(&piece) {
                    break error;
                }
            };
            match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {}
                _ => return Err(error),
            }
        }
        "drain" => return io::copy(&mut dial(port)?, &mut io::sink()).map(u128::from),
        "crowd" => crowd(port, next()?, next()?)?,
        "sequence" => {
            for _ in 0..next()? {
                let mut stream = dial(port)?;
                stream.write_all(&[7])?;
                stream.read_exact(&mut [0])?;
            }
        }
        "hold" => {
            for _ in 0..next()? {
                let mut stream = dial(port)?;
                stream.write_all(b"held")?;
                held.push(stream);
            }
        }
        other => return Err(invalid(&format!("no command {other:?}"))),
    }
    Ok(begun.elapsed().as_micros())
}

/// The bytes of one direction: the byte at `n` depends on the seed and on `n` modulo [`PERIOD`].
struct Pattern(Vec<u8>);

impl Pattern {
    fn new(seed: usize) -> Self {
        let byte = |at: u32| (at.wrapping_mul(0x9e37_79b1) >> 23) as u8 ^ seed as u8;
        Self(
            (0..(PERIOD + LARGEST_WRITE) as u32)
                .map(|at| byte(at % PERIOD as u32))
                .collect(),
        )
    }

    fn at(&self, from: usize, length: usize) -> &[u8] {
        &self.0[from % PERIOD..][..length]
    }
}

fn check(pattern: &Pattern, from: usize, bytes: &[u8]) -> io::Result<()> {
    let expected = pattern.at(from, bytes.len());
    if bytes == expected {
        return Ok(());
    }
    let wrong = bytes
        .iter()
        .zip(expected)
        .take_while(|(is, should)| is == should)
        .count();
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("byte {} is wrong", from + wrong),
    ))
}

/// Sends in writes of `size`, or of any size for 0.
fn send(stream: &mut UnixStream, bytes: usize, size: usize, seed: usize) -> io::Result<()> {
    let pattern = Pattern::new(seed);
    let mut random = 0x2545_f491_u64 + seed as u64;
    let mut sent = 0;
    while sent < bytes {
        let wanted = match size {
            0 => {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                // Small ones as often as large ones.
                1 + (random >> 32) as usize % (1 << (random % 21))
            }
            size => size,
        };
        let length = wanted.min(bytes - sent);
        stream.write_all(pattern.at(sent, length))?;
        sent += length;
    }
    Ok(())
}

/// Reads up to the end, `size` bytes at a time, and holds the bytes to the pattern.
fn receive(
    stream: &mut UnixStream,
    bytes: usize,
    size: usize,
    seed: usize,
    pause: Duration,
) -> io::Result<()> {
    let pattern = Pattern::new(seed);
    let mut buffer = vec![0; size];
    let mut received = 0;
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        check(&pattern, received, &buffer[..length])?;
        received += length;
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
    if received == bytes {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("the end after {received} of {bytes} bytes"),
    ))
}

fn both(stream: UnixStream, bytes: usize, size: usize, seed: usize) -> io::Result<()> {
    let mut reading = stream.try_clone()?;
    let reader = thread::spawn(move || receive(&mut reading, bytes, 1 << 17, seed + 1, Duration::ZERO));
    let mut writing = stream;
    let sent = send(&mut writing, bytes, size, seed).and_then(|()| writing.shutdown(Shutdown::Write));
    let received = reader
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the reader panicked")));
    sent.and(received)
}

fn crowd(port: u32, count: usize, bytes: usize) -> io::Result<()> {
    let barrier = Barrier::new(count);
    thread::scope(|scope| {
        let spawn = |number: usize| {
            let barrier = &barrier;
            scope.spawn(move || {
                let dialled = dial(port);
                // All are open before the first says anything, and none is left waiting by one that failed.
                barrier.wait();
                let mut stream = dialled?;
                stream.write_all(&(number as u32).to_le_bytes())?;
                let sent = vec![number as u8; bytes];
                let mut echoed = vec![0; bytes];
                for piece in 0..bytes.div_ceil(4096) {
                    let range = piece * 4096..bytes.min((piece + 1) * 4096);
                    stream.write_all(&sent[range.clone()])?;
                    stream.read_exact(&mut echoed[range])?;
                }
                if echoed == sent {
                    Ok(())
                } else {
                    Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "another stream's bytes",
                    ))
                }
            })
        };
        let threads: Vec<_> = (0..count).map(spawn).collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        })
    })
}
