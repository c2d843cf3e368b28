//! How an agent is reached: as a child of the suite, or over sockets that somebody else connects.

use std::{
    any::Any,
    ffi::OsString,
    fs, io,
    io::{Read, Write},
    net::Shutdown,
    os::unix::{
        net::{UnixListener, UnixStream},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Pause between two looks at something that does not wake this side.
const LOOK: Duration = Duration::from_millis(2);
/// How long an agent whose bridge has ended may take to end; then it is killed, which is no failure.
const END_LIMIT: Duration = Duration::from_secs(5);

/// The bridge's two directions.
pub struct Link {
    /// What the agent says.
    pub reader: Box<dyn Read + Send>,
    /// What it is told.
    pub writer: Box<dyn Write + Send>,
    /// Tells it that there is nothing more, once `writer` is gone.
    pub half_close: Box<dyn FnOnce() + Send>,
}

impl Link {
    /// Both directions of a socket.
    ///
    /// # Errors
    /// The system's.
    pub fn of_socket(stream: UnixStream) -> io::Result<Self> {
        let (writer, closer) = (stream.try_clone()?, stream.try_clone()?);
        Ok(Self {
            reader: Box::new(stream),
            writer: Box::new(writer),
            half_close: Box::new(move || {
                let _ = closer.shutdown(Shutdown::Write);
            }),
        })
    }
}

/// An agent under test.
pub trait Agent {
    /// A connection on which nothing has been said.
    ///
    /// # Errors
    /// Why there is none. Cases that need one are then not tried.
    fn connect(&mut self) -> Result<Link, String>;

    /// Called once this side has ended its sending on the last connection.
    ///
    /// # Errors
    /// How the agent crashed, if it did.
    fn disconnect(&mut self) -> Result<(), String>;

    /// Whether each connection has an agent of its own, so that cases need not share one.
    fn is_new_each_time(&self) -> bool;

    /// Listens on a port that the agent can dial.
    ///
    /// # Errors
    /// The system's.
    fn listen(&mut self, number: u32) -> io::Result<Port>;
}

/// A port that the agent can dial.
pub struct Port {
    /// Its number, for the request.
    pub number: u32,
    listener: UnixListener,
    _guard: Box<dyn Any + Send>,
}

impl Port {
    /// A port behind a listening socket. `guard` is dropped with it, and undoes what was done for it.
    ///
    /// # Errors
    /// The system's.
    pub fn new(number: u32, listener: UnixListener, guard: impl Any + Send) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            number,
            listener,
            _guard: Box::new(guard),
        })
    }

    /// The socket `prefix` followed by the port's number.
    ///
    /// # Errors
    /// The system's.
    pub fn at(prefix: &Path, number: u32) -> io::Result<Self> {
        let mut path = OsString::from(prefix);
        path.push(number.to_string());
        let path = PathBuf::from(path);
        Self::new(number, UnixListener::bind(&path)?, Unlink(path))
    }

    /// The next connection, if one comes within `limit`.
    ///
    /// # Errors
    /// The system's.
    pub fn accept(&self, limit: Duration) -> io::Result<Option<UnixStream>> {
        let deadline = Instant::now() + limit;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(Some(stream));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                    thread::sleep(LOOK);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Removes a socket's file.
struct Unlink(PathBuf);

impl Drop for Unlink {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// An agent started by the suite: the bridge on its standard input and output, ports as `DIR/<port>`.
#[derive(Debug)]
pub struct Program {
    command: Vec<String>,
    directory: tempfile::TempDir,
    child: Option<Child>,
    /// Whether its log, on standard error, is shown.
    show_log: bool,
}

impl Program {
    /// An agent that `command` starts. The word `{}` in it, or a part of a word, stands for the directory of the
    /// ports.
    ///
    /// # Errors
    /// The system's: no temporary directory could be made.
    pub fn new(command: Vec<String>, show_log: bool) -> io::Result<Self> {
        Ok(Self {
            command,
            directory: tempfile::Builder::new().prefix("conformance-").tempdir()?,
            child: None,
            show_log,
        })
    }
}

impl Agent for Program {
    fn connect(&mut self) -> Result<Link, String> {
        let directory = self.directory.path().display().to_string();
        let mut words = self.command.iter().map(|word| word.replace("{}", &directory));
        let program = words.next().unwrap_or_default();
        let mut child = Command::new(&program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(if self.show_log {
                Stdio::inherit()
            } else {
                Stdio::null()
            })
            .spawn()
            .map_err(|error| format!("starting {program}: {error}"))?;
        let (writer, reader) = (child.stdin.take(), child.stdout.take());
        self.child = Some(child);
        match (reader, writer) {
            (Some(reader), Some(writer)) => Ok(Link {
                reader: Box::new(reader),
                writer: Box::new(writer),
                half_close: Box::new(|| {}),
            }),
            _ => Err(format!("{program} has no standard streams")),
        }
    }

    fn disconnect(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let deadline = Instant::now() + END_LIMIT;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    return match status.signal() {
                        Some(signal) => Err(format!("the agent was ended by signal {signal}")),
                        None => Ok(()),
                    };
                }
                Ok(None) if Instant::now() < deadline => thread::sleep(LOOK),
                _ => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Ok(());
                }
            }
        }
    }

    fn is_new_each_time(&self) -> bool {
        true
    }

    fn listen(&mut self, number: u32) -> io::Result<Port> {
        Port::at(&self.directory.path().join(""), number)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An agent that dials: the suite listens for its bridge and for its ports.
#[derive(Debug)]
pub struct Dialling {
    bridge: UnixListener,
    path: PathBuf,
    prefix: PathBuf,
    connection: Option<UnixStream>,
    limit: Duration,
}

impl Dialling {
    /// Listens at `bridge`; ports are `prefix` followed by their number. `limit` is how long the agent may take to
    /// dial, for the first time and again.
    ///
    /// # Errors
    /// The system's.
    pub fn new(bridge: PathBuf, prefix: PathBuf, limit: Duration) -> io::Result<Self> {
        let listener = UnixListener::bind(&bridge)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            bridge: listener,
            path: bridge,
            prefix,
            connection: None,
            limit,
        })
    }
}

impl Agent for Dialling {
    fn connect(&mut self) -> Result<Link, String> {
        let deadline = Instant::now() + self.limit;
        let stream = loop {
            match self.bridge.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= deadline {
                        return Err(format!(
                            "no agent dialled {} within {} s",
                            self.path.display(),
                            self.limit.as_secs()
                        ));
                    }
                    thread::sleep(LOOK);
                }
                Err(error) => return Err(format!("accepting at {}: {error}", self.path.display())),
            }
        };
        let linked = stream.set_nonblocking(false).and_then(|()| {
            self.connection = Some(stream.try_clone()?);
            Link::of_socket(stream)
        });
        linked.map_err(|error| format!("taking a connection at {}: {error}", self.path.display()))
    }

    fn disconnect(&mut self) -> Result<(), String> {
        if let Some(connection) = self.connection.take() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        Ok(())
    }

    fn is_new_each_time(&self) -> bool {
        false
    }

    fn listen(&mut self, number: u32) -> io::Result<Port> {
        Port::at(&self.prefix, number)
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
