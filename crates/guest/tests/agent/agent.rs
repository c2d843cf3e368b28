//! The agent under test.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use cofferdam_protocol::{
    HResult, MessageType, NULL_CONTAINER_ID,
    frame::{self, Frame, MAX_GUEST_FRAME_BYTES, MAX_HOST_FRAME_BYTES, read_frame},
    message::{self as m, ExecuteProcess, ProcessParameters, Request, VsockStdioRelaySettings},
};
use serde_json::{Value, json};

/// A running agent, and the directory its stdio ports are sockets in.
pub(crate) struct Agent {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    directory: tempfile::TempDir,
    next_id: u64,
    next_port: u32,
    /// Answers read while another was waited for.
    waiting: HashMap<u64, Frame>,
    pub(crate) notifications: Vec<Value>,
}

/// An answer's body.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) Value);

impl Answer {
    pub(crate) fn result(&self) -> HResult {
        serde_json::from_value(self.0["Result"].clone()).expect("every answer has a result")
    }

    pub(crate) fn ok(self) -> Value {
        assert!(self.result().is_ok(), "{:?}", self.0);
        self.0
    }

    /// Asserts a failure, and returns its message.
    pub(crate) fn failed(self, code: HResult) -> String {
        assert_eq!(self.result(), code, "{:?}", self.0);
        let message = self.0["ErrorMessage"]
            .as_str()
            .expect("a failure says why")
            .to_owned();
        assert_eq!(self.0["ErrorRecords"][0]["Message"], message.as_str());
        message
    }
}

impl Agent {
    /// An agent that has not negotiated.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_cofferdam-agent"))
            .args(["-v4", "-loglevel", "error", "--use-inouterr", "--stdio-dir"])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        Self {
            child,
            input,
            output,
            directory,
            next_id: 0,
            next_port: 0x4000_0001,
            waiting: HashMap::new(),
            notifications: Vec::new(),
        }
    }

    /// An agent that is ready.
    pub(crate) fn ready() -> Self {
        let mut agent = Self::start();
        agent.negotiate(4, 4).ok();
        agent
    }

    pub(crate) fn negotiate(&mut self, minimum: u32, maximum: u32) -> Answer {
        let range = json!({"ContainerId": "", "MinimumVersion": minimum, "MaximumVersion": maximum});
        self.call(m::NEGOTIATE_PROTOCOL, &range)
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub(crate) fn send_text(&mut self, message_type: MessageType, body: &[u8]) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send_bytes(&frame::encode(message_type, id, body, MAX_HOST_FRAME_BYTES).unwrap());
        id
    }

    pub(crate) fn send(&mut self, message_type: MessageType, body: &Value) -> u64 {
        self.send_text(message_type, body.to_string().as_bytes())
    }

    /// The next frame; the stream's end is a failure.
    fn frame(&mut self) -> Frame {
        read_frame(&mut self.output, MAX_GUEST_FRAME_BYTES)
            .unwrap()
            .expect("the agent still talks")
    }

    /// The answer to request `id`, whatever comes before it.
    pub(crate) fn answer(&mut self, id: u64) -> (MessageType, Answer) {
        let frame = loop {
            if let Some(frame) = self.waiting.remove(&id) {
                break frame;
            }
            let frame = self.frame();
            if frame.message_type == m::CONTAINER_NOTIFICATION {
                self.notifications
                    .push(serde_json::from_slice(&frame.body).unwrap());
            } else {
                assert!(
                    self.waiting.insert(frame.id, frame).is_none(),
                    "two answers with one id"
                );
            }
        };
        (
            frame.message_type,
            Answer(serde_json::from_slice(&frame.body).unwrap()),
        )
    }

    pub(crate) fn call(&mut self, message_type: MessageType, body: &Value) -> Answer {
        let id = self.send(message_type, body);
        let (answer_type, answer) = self.answer(id);
        assert_eq!(answer_type, message_type.response());
        answer
    }

    /// A request about the VM.
    pub(crate) fn call_vm(&mut self, message_type: MessageType, mut body: Value) -> Answer {
        body["ContainerId"] = NULL_CONTAINER_ID.into();
        self.call(message_type, &body)
    }

    pub(crate) fn modify(&mut self, kind: &str, resource: &str, settings: Value) -> Answer {
        let request = json!({"RequestType": kind, "ResourceType": resource, "Settings": settings});
        self.call_vm(m::MODIFY_SETTINGS, json!({"Request": request}))
    }

    /// A port the agent can dial.
    pub(crate) fn listen(&mut self) -> (u32, UnixListener) {
        let port = self.next_port;
        self.next_port += 1;
        (
            port,
            UnixListener::bind(self.directory.path().join(port.to_string())).unwrap(),
        )
    }

    /// Starts a VM process; returns its pid and the wanted streams.
    pub(crate) fn execute(
        &mut self,
        mut parameters: ProcessParameters,
        wanted: [bool; 3],
    ) -> (u32, [Option<UnixStream>; 3]) {
        let mut ports = [None; 3];
        let mut listeners = [None, None, None];
        for (index, _) in wanted.iter().enumerate().filter(|(_, wanted)| **wanted) {
            let (port, listener) = self.listen();
            ports[index] = Some(port);
            listeners[index] = Some(listener);
        }
        [
            parameters.create_std_in_pipe,
            parameters.create_std_out_pipe,
            parameters.create_std_err_pipe,
        ] = wanted;
        let settings = VsockStdioRelaySettings {
            std_in: ports[0],
            std_out: ports[1],
            std_err: ports[2],
        };
        let request = Request::to_vm(ExecuteProcess::new(parameters, settings));
        let id = self.send_text(m::EXECUTE_PROCESS, &request.to_body());
        let answer = self.answer(id).1.ok();
        let streams = listeners.map(|listener| {
            listener.map(|listener| {
                let stream = listener.accept().unwrap().0;
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                stream
            })
        });
        (
            u32::try_from(answer["ProcessId"].as_u64().unwrap()).unwrap(),
            streams,
        )
    }

    pub(crate) fn wait(&mut self, pid: u32) -> u64 {
        let body = json!({"ProcessId": pid, "TimeoutInMs": u32::MAX});
        self.call_vm(m::WAIT_FOR_PROCESS, body).ok()["ExitCode"]
            .as_u64()
            .unwrap()
    }

    /// Closes the bridge, and returns the agent's exit status once it ends.
    pub(crate) fn close(mut self) -> Option<i32> {
        self.input = None;
        self.child.wait().unwrap().code()
    }

    /// Reads until the agent closes the bridge, and returns its exit status.
    pub(crate) fn until_closed(mut self) -> Option<i32> {
        let mut rest = Vec::new();
        self.output.read_to_end(&mut rest).unwrap();
        self.child.wait().unwrap().code()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A VM process with these arguments.
pub(crate) fn command(arguments: &[&str]) -> ProcessParameters {
    ProcessParameters {
        command_args: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        ..ProcessParameters::default()
    }
}
