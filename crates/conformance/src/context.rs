//! What a case works with: requests in the protocol's own JSON, processes with their streams, containers.

use std::{
    io::Read,
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    agent::{Agent, Port},
    case::{Outcome, Stop, failed},
    frame::{NO_ACTIVITY, VM, word},
    reply::Reply,
    session::{Owed, Session},
    setup::{ContainerSetup, Setup},
};

/// How long clearing up after a case may take, in all.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(10);

/// One case's surroundings.
pub struct Context<'a> {
    /// The connection.
    pub session: &'a mut Session,
    /// The agent, for ports.
    pub agent: &'a mut dyn Agent,
    /// What the suite was given.
    pub setup: &'a Setup,
    /// What the agent said it can do; null on a connection without negotiation.
    pub capabilities: &'a Value,
    /// Numbers of ports.
    pub numbers: &'a mut Numbers,
    /// For whom notifications are due.
    pub owed: Owed,
    /// Containers that may be left.
    containers: Vec<String>,
}

/// Numbers of containers: used once in this process, since all agents of a machine may share its records.
static CONTAINERS: AtomicU32 = AtomicU32::new(1);

/// Numbers of ports: used once in a run.
#[derive(Debug)]
pub struct Numbers {
    port: u32,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            // §1: 0x40000001 upward, never reused.
            port: 0x4000_0001,
        }
    }
}

/// A process, and this side's ends of its streams.
#[derive(Debug)]
pub struct Running {
    /// Its pid.
    pub pid: u32,
    /// Its standard input.
    pub stdin: Option<UnixStream>,
    /// Its standard output.
    pub stdout: Option<UnixStream>,
    /// Its standard error.
    pub stderr: Option<UnixStream>,
}

impl Running {
    /// Reads standard output to its end, then closes it.
    pub fn output(&mut self) -> Outcome<String> {
        let bytes = read_to_end(self.stdout.take(), "standard output")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Half-closes standard input.
    pub fn end_input(&mut self) -> Outcome {
        if let Some(stdin) = &self.stdin {
            stdin.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}

/// Reads a stream to its end.
pub fn read_to_end(stream: Option<UnixStream>, name: &str) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(mut stream) = stream else {
        return failed(format!("{name} is not connected"));
    };
    match stream.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => failed(format!("{name} broke after {} bytes: {error}", bytes.len())),
    }
}

/// Standard output alone.
pub const OUT: [bool; 3] = [false, true, false];
/// No streams.
pub const NONE: [bool; 3] = [false; 3];

impl<'a> Context<'a> {
    /// The surroundings of one case.
    pub fn new(
        session: &'a mut Session,
        agent: &'a mut dyn Agent,
        setup: &'a Setup,
        capabilities: &'a Value,
        numbers: &'a mut Numbers,
        owed: Owed,
    ) -> Self {
        Self {
            session,
            agent,
            setup,
            capabilities,
            numbers,
            owed,
            containers: Vec::new(),
        }
    }

    /// Whether the agent names this capability.
    #[must_use]
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities["GuestDefinedCapabilities"][capability] == true
    }

    /// A request about `container` and its answer.
    pub fn of(&mut self, container: &str, word: u32, body: Value) -> Outcome<Reply> {
        let id = self.send(container, word, body);
        self.session.answer(id)
    }

    /// A request about the VM itself and its answer.
    pub fn vm(&mut self, word: u32, body: Value) -> Outcome<Reply> {
        self.of(VM, word, body)
    }

    /// A request; its id.
    pub fn send(&mut self, container: &str, word: u32, mut body: Value) -> u64 {
        body["ContainerId"] = container.into();
        if body["ActivityId"].is_null() {
            body["ActivityId"] = NO_ACTIVITY.into();
        }
        self.session.send(word, &body)
    }

    /// A port for the agent to dial.
    pub fn port(&mut self) -> Outcome<Port> {
        let number = self.numbers.port;
        self.numbers.port += 1;
        Ok(self.agent.listen(number)?)
    }

    /// A name no other container has.
    pub fn new_id(&mut self) -> String {
        let number = CONTAINERS.fetch_add(1, Ordering::Relaxed);
        format!("conformance-{}-{number}", std::process::id())
    }

    /// How containers are made.
    pub fn container_setup(&self) -> Outcome<&'a ContainerSetup> {
        self.setup
            .container
            .as_ref()
            .map_err(|why| Stop::NotTried(why.clone()))
    }

    /// The words that run `script` in the VM.
    pub fn vm_words(&self, script: &str) -> Outcome<Vec<String>> {
        let shell = self.setup.shell.as_ref();
        let mut words = shell.map_err(|why| Stop::NotTried(why.clone()))?.clone();
        words.push(script.to_owned());
        Ok(words)
    }

    /// `ExecuteProcess` with these parameters; the wanted ones of the three streams get ports of their own.
    pub fn execute(&mut self, container: &str, parameters: Value, wanted: [bool; 3]) -> Outcome<Running> {
        let (id, ports) = self.send_execute(container, parameters, wanted)?;
        let reply = self.session.answer(id)?.ok()?;
        self.connected(&reply, &ports)
    }

    /// Sends `ExecuteProcess`; its id, and the ports of the wanted streams.
    pub fn send_execute(
        &mut self,
        container: &str,
        mut parameters: Value,
        wanted: [bool; 3],
    ) -> Outcome<(u64, [Option<Port>; 3])> {
        let mut ports = [None, None, None];
        let mut relay = json!({});
        let names = [
            ("CreateStdInPipe", "StdIn"),
            ("CreateStdOutPipe", "StdOut"),
            ("CreateStdErrPipe", "StdErr"),
        ];
        for (index, (flag, member)) in names.into_iter().enumerate() {
            if wanted[index] {
                let port = self.port()?;
                parameters[flag] = true.into();
                relay[member] = port.number.into();
                ports[index] = Some(port);
            }
        }
        let settings = json!({"ProcessParameters": parameters.to_string(), "VsockStdioRelaySettings": relay});
        let id = self.send(container, word::EXECUTE_PROCESS, json!({"Settings": settings}));
        Ok((id, ports))
    }

    /// Takes the streams of a process that runs.
    pub fn connected(&mut self, reply: &Value, ports: &[Option<Port>; 3]) -> Outcome<Running> {
        let pid = reply["ProcessId"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        let pid = pid
            .filter(|pid| *pid != 0)
            .ok_or_else(|| Stop::Failed(format!("the ProcessId is {}", reply["ProcessId"])))?;
        let mut streams = [None, None, None];
        for (index, name) in ["stdin", "stdout", "stderr"].into_iter().enumerate() {
            let Some(port) = &ports[index] else { continue };
            // The agent dials before it answers; a connection on its way through a proxy may still come.
            let stream = port.accept(self.session.limit())?.ok_or_else(|| {
                Stop::Failed(format!("{name} was not dialled, though the process was started"))
            })?;
            stream.set_read_timeout(Some(self.session.limit()))?;
            stream.set_write_timeout(Some(self.session.limit()))?;
            streams[index] = Some(stream);
        }
        let [stdin, stdout, stderr] = streams;
        Ok(Running {
            pid,
            stdin,
            stdout,
            stderr,
        })
    }

    /// Runs `script` in the VM.
    pub fn vm_shell(&mut self, script: &str, wanted: [bool; 3]) -> Outcome<Running> {
        let words = self.vm_words(script)?;
        self.execute(VM, json!({"CommandArgs": words}), wanted)
    }

    /// Whether the agent's machine has `path`: looked up here if that is this machine, else by its shell.
    pub fn agent_has(&mut self, path: &Path) -> Outcome<bool> {
        if self.container_setup()?.is_here() {
            return Ok(path.exists());
        }
        let words = self.vm_words("test -e \"$0\"")?;
        let words: Vec<String> = words.into_iter().chain([path.display().to_string()]).collect();
        let process = self.execute(VM, json!({"CommandArgs": words}), NONE)?;
        Ok(self.wait(VM, process.pid)? == 0)
    }

    /// The exit code of a process.
    pub fn wait(&mut self, container: &str, pid: u32) -> Outcome<u64> {
        let body = json!({"ProcessId": pid, "TimeoutInMs": u32::MAX});
        let reply = self.of(container, word::WAIT_FOR_PROCESS, body)?.ok()?;
        exit_code(&reply)
    }

    /// The `ContainerConfig` of a container whose first process runs `script`, after `change`.
    pub fn config(&mut self, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> Outcome<Value> {
        let setup = self.container_setup()?;
        let mut spec = setup.spec.clone();
        let mut words = setup.shell.clone();
        words.push(script.to_owned());
        spec["process"]["args"] = words.into();
        spec["process"]["terminal"] = false.into();
        // Its own name tells its processes from the VM's.
        spec["hostname"] = "conformance".into();
        change(&mut spec);
        Ok(json!({
            "SchemaVersion": {"Major": 2, "Minor": 1},
            "OciBundlePath": setup.bundles.join(id).display().to_string(),
            "OciSpecification": spec,
        }))
    }

    /// Creates a container whose first process will run `script`.
    pub fn create(&mut self, script: &str) -> Outcome<String> {
        self.create_with(script, |_| {})
    }

    /// The same, with the spec after `change`.
    pub fn create_with(&mut self, script: &str, change: impl FnOnce(&mut Value)) -> Outcome<String> {
        let id = self.new_id();
        let config = self.config(&id, script, change)?;
        self.create_as(&id, &config, NO_ACTIVITY)?.ok()?;
        Ok(id)
    }

    /// Sends Create, and notes what is owed if it succeeds.
    pub fn create_as(&mut self, id: &str, config: &Value, activity: &str) -> Outcome<Reply> {
        let body = json!({"ActivityId": activity, "ContainerConfig": config.to_string()});
        // Before the answer: the container may end at once.
        self.owed.add(id);
        self.containers.push(id.to_owned());
        let reply = self.of(id, word::CREATE, body)?;
        if reply.result != 0 {
            self.owed.forgive(id);
            if !self.session.notifications(id)?.is_empty() {
                return failed(format!(
                    "the end of container {id:?} was told, and then its Create failed"
                ));
            }
        }
        Ok(reply)
    }

    /// Lets the first process of a container run.
    pub fn start_init(&mut self, id: &str, wanted: [bool; 3]) -> Outcome<Running> {
        self.of(id, word::START, json!({}))?.ok()?;
        self.execute(id, json!({}), wanted)
    }

    /// Runs `script` in a running container.
    pub fn exec(&mut self, id: &str, script: &str, wanted: [bool; 3]) -> Outcome<Running> {
        let mut words = self.container_setup()?.shell.clone();
        words.push(script.to_owned());
        let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": words});
        self.execute(id, json!({"OciProcess": process}), wanted)
    }

    /// Deletes a container's state, where the agent can.
    pub fn delete(&mut self, id: &str) -> Outcome {
        if self.can("DeleteContainerStateSupported") {
            self.of(id, word::DELETE_CONTAINER_STATE, json!({}))?.ok()?;
            self.containers.retain(|other| other != id);
        }
        Ok(())
    }

    /// Ends what is left of the case's containers, without judging how it goes.
    pub fn clean_up(&mut self) {
        let deadline = Instant::now() + CLEAN_UP_LIMIT;
        for id in std::mem::take(&mut self.containers) {
            for word in [word::SHUTDOWN_FORCED, word::DELETE_CONTAINER_STATE] {
                // A container that is still ending cannot be deleted yet.
                for _ in 0..20 {
                    let request = self.send(&id, word, json!({}));
                    let left = deadline.saturating_duration_since(Instant::now());
                    match self.session.answer_within(request, left) {
                        Ok(reply) if word == word::DELETE_CONTAINER_STATE && reply.result != 0 => {
                            let _ = self.session.listen_for(Duration::from_millis(50));
                        }
                        _ => break,
                    }
                }
            }
        }
    }
}

/// `ExitCode`.
pub fn exit_code(reply: &Value) -> Outcome<u64> {
    match reply["ExitCode"].as_u64() {
        Some(code) if u32::try_from(code).is_ok() => Ok(code),
        _ => failed(format!("the ExitCode is {}", reply["ExitCode"])),
    }
}
