//! Requests, responses and notifications (GCS bridge protocol §4 to §6).
//!
//! A request is a [`Request`] around a [`Payload`]; its answer is a [`Response`] around the payload's
//! [`Payload::Reply`]. Members that every message has sit in the wrapper, the message's own in the payload.

mod container;
mod limits;
mod metrics;
mod negotiate;
mod notification;
mod process;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use container::{
    AgentMemory, ContainerConfig, Create, DeleteContainerState, DumpStacks, DumpStacksReply, GetProperties,
    GetPropertiesReply, GuestMount, ModifySettings, ProcessDetails, Properties, PropertyQuery, PropertyType,
    SchemaVersion, ShutdownForced, ShutdownGraceful, Start,
};
pub use limits::{OutOfMemory, WaitForOom, WaitForOomReply};
pub use metrics::{
    BlockIoMetrics, CpuMetrics, CpuThrottling, CpuUsage, DeviceFigure, MemoryFigure, MemoryMetrics, Metrics,
    OomMetrics, PidsMetrics,
};
pub use negotiate::{Capabilities, GuestDefinedCapabilities, NegotiateProtocol, NegotiateProtocolReply};
pub use notification::{ContainerNotification, NotificationType};
pub use process::{
    ExecuteProcess, ExecuteProcessReply, ExecuteProcessSettings, INFINITE_TIMEOUT_MS, ProcessParameters,
    ResizeConsole, SIGKILL, SignalOptions, SignalProcess, VsockStdioRelaySettings, WaitForProcess,
    WaitForProcessReply,
};

use crate::{HResult, MessageType, NULL_CONTAINER_ID, json};

/// Creates a container.
pub const CREATE: MessageType = MessageType::request(0x01);
/// Starts a created container.
pub const START: MessageType = MessageType::request(0x02);
/// Sends SIGTERM to a container's init, or powers the VM off.
pub const SHUTDOWN_GRACEFUL: MessageType = MessageType::request(0x03);
/// Sends SIGKILL to a container's init, or powers the VM off.
pub const SHUTDOWN_FORCED: MessageType = MessageType::request(0x04);
/// Starts a process.
pub const EXECUTE_PROCESS: MessageType = MessageType::request(0x05);
/// Waits for a process to exit.
pub const WAIT_FOR_PROCESS: MessageType = MessageType::request(0x06);
/// Sends a signal to a process.
pub const SIGNAL_PROCESS: MessageType = MessageType::request(0x07);
/// Sets the size of a process's terminal.
pub const RESIZE_CONSOLE: MessageType = MessageType::request(0x08);
/// Asks for a container's processes and figures.
pub const GET_PROPERTIES: MessageType = MessageType::request(0x09);
/// Adds, removes or changes a resource.
pub const MODIFY_SETTINGS: MessageType = MessageType::request(0x0a);
/// Agrees on a protocol version; the first message.
pub const NEGOTIATE_PROTOCOL: MessageType = MessageType::request(0x0b);
/// Asks for the stacks of the agent's threads.
pub const DUMP_STACKS: MessageType = MessageType::request(0x0c);
/// Deletes what the guest keeps of a container.
pub const DELETE_CONTAINER_STATE: MessageType = MessageType::request(0x0d);
/// Waits until a container runs out of memory. An extension of cofferdam's agent: its id is beyond those that the
/// original may still take (§13.9).
pub const WAIT_FOR_OOM: MessageType = MessageType::request(0xc01);
/// Says that a container has exited.
pub const CONTAINER_NOTIFICATION: MessageType = MessageType::notification(0x01);

/// The members of one request, apart from those that all requests have.
pub trait Payload: Serialize + DeserializeOwned {
    /// The request's type word.
    const TYPE: MessageType;
    /// The members of its answer, apart from those that all answers have.
    type Reply: Serialize + DeserializeOwned + Default;
}

/// An answer without members of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The W3C trace context a host may send along.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceContext {
    /// The `traceparent` header value.
    pub traceparent: String,
    /// The `tracestate` header value.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tracestate: String,
}

/// The members that all requests have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RequestBase {
    /// Which container; [`NULL_CONTAINER_ID`] for the VM itself.
    pub container_id: String,
    /// A GUID that the answer echoes, letter for letter.
    pub activity_id: String,
    /// The host's trace context.
    #[serde(rename = "otsc", skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

impl Default for RequestBase {
    fn default() -> Self {
        Self {
            container_id: String::new(),
            activity_id: NULL_CONTAINER_ID.to_owned(),
            trace: None,
        }
    }
}

impl RequestBase {
    /// Reads only the members all requests have, so that even a request whose own members are broken can be
    /// answered with its activity id.
    pub fn from_body(body: &[u8]) -> Result<Self, DecodeError> {
        json::from_slice(body).map_err(|source| DecodeError {
            what: "request",
            source,
        })
    }

    /// Whether the request is about the VM itself.
    pub fn is_vm(&self) -> bool {
        self.container_id == NULL_CONTAINER_ID
    }
}

/// A whole request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Request<P> {
    /// The members that all requests have.
    #[serde(flatten)]
    pub base: RequestBase,
    /// The request's own members.
    #[serde(flatten)]
    pub payload: P,
}

/// A body is not the JSON it should be. To be answered with [`HResult::INVALID_JSON`].
#[derive(Debug, thiserror::Error)]
#[error("the body of a {what} cannot be read: {source}")]
pub struct DecodeError {
    /// Which message.
    what: &'static str,
    /// Where and why.
    #[source]
    source: serde_json::Error,
}

impl<P: Payload> Request<P> {
    /// A request about `container_id`, without an activity or a trace.
    pub fn new(container_id: impl Into<String>, payload: P) -> Self {
        Self {
            base: RequestBase {
                container_id: container_id.into(),
                ..RequestBase::default()
            },
            payload,
        }
    }

    /// A request about the VM itself.
    pub fn to_vm(payload: P) -> Self {
        Self::new(NULL_CONTAINER_ID, payload)
    }

    /// Reads a request's body.
    pub fn from_body(body: &[u8]) -> Result<Self, DecodeError> {
        let (base, payload) = decode_both(body, P::TYPE.name().unwrap_or("request"))?;
        Ok(Self { base, payload })
    }

    /// The body to send.
    pub fn to_body(&self) -> Vec<u8> {
        encode_body(self)
    }
}

/// One record of how an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ErrorRecord {
    /// The code.
    pub result: HResult,
    /// The message.
    pub message: String,
    /// A stack trace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stack_trace: String,
    /// Which part failed: `gcs` for the agent.
    pub module_name: String,
    /// The source file.
    pub file_name: String,
    /// The line in it; [`ErrorRecord::UNKNOWN_LINE`] if unknown.
    pub line: u32,
    /// The function.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub function_name: String,
}

impl ErrorRecord {
    /// The line number of a record that knows none.
    pub const UNKNOWN_LINE: u32 = u32::MAX;

    /// A record of the agent, without a place in the source.
    pub fn new(result: HResult, message: impl Into<String>) -> Self {
        Self {
            result,
            message: message.into(),
            module_name: "gcs".to_owned(),
            ..Self::default()
        }
    }
}

impl Default for ErrorRecord {
    fn default() -> Self {
        Self {
            result: HResult::OK,
            message: String::new(),
            stack_trace: String::new(),
            module_name: String::new(),
            file_name: String::new(),
            line: Self::UNKNOWN_LINE,
            function_name: String::new(),
        }
    }
}

/// The members that all responses have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ResponseBase {
    /// Success or the reason of the failure.
    pub result: HResult,
    /// The request's activity id.
    pub activity_id: String,
    /// Why it failed, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_message: String,
    /// Why it failed, record by record.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub error_records: Vec<ErrorRecord>,
}

impl Default for ResponseBase {
    fn default() -> Self {
        Self {
            result: HResult::OK,
            activity_id: NULL_CONTAINER_ID.to_owned(),
            error_message: String::new(),
            error_records: Vec::new(),
        }
    }
}

/// A whole response. Where `base.result` is a failure, `payload` has its default.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Response<R> {
    /// The members that all responses have.
    #[serde(flatten)]
    pub base: ResponseBase,
    /// The response's own members.
    #[serde(flatten)]
    pub payload: R,
}

impl<R: Serialize + DeserializeOwned + Default> Response<R> {
    /// Success.
    pub fn success(activity_id: impl Into<String>, payload: R) -> Self {
        Self {
            base: ResponseBase {
                activity_id: activity_id.into(),
                ..ResponseBase::default()
            },
            payload,
        }
    }

    /// Reads a response's body. The response's own members are read only where it reports success.
    pub fn from_body(body: &[u8]) -> Result<Self, DecodeError> {
        let decode = |source| DecodeError {
            what: "response",
            source,
        };
        let value: Value = serde_json::from_slice(body).map_err(decode)?;
        let base: ResponseBase = json::from_value(value.clone()).map_err(decode)?;
        let payload = if base.result.is_ok() {
            json::from_value(value).map_err(decode)?
        } else {
            R::default()
        };
        Ok(Self { base, payload })
    }

    /// The body to send.
    pub fn to_body(&self) -> Vec<u8> {
        encode_body(self)
    }
}

impl Response<Empty> {
    /// A failure: the same shape whatever the request was. One record repeats the code and the message.
    pub fn failure(activity_id: impl Into<String>, result: HResult, message: impl Into<String>) -> Self {
        let message = message.into();
        let base = ResponseBase {
            result,
            activity_id: activity_id.into(),
            error_records: vec![ErrorRecord::new(result, message.clone())],
            error_message: message,
        };
        Self {
            base,
            payload: Empty {},
        }
    }
}

fn decode_both<A: DeserializeOwned, B: DeserializeOwned>(
    body: &[u8],
    what: &'static str,
) -> Result<(A, B), DecodeError> {
    let decode = |source| DecodeError { what, source };
    let value: Value = serde_json::from_slice(body).map_err(decode)?;
    let first = json::from_value(value.clone()).map_err(decode)?;
    Ok((first, json::from_value(value).map_err(decode)?))
}

fn encode_body(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("invariant: message types have string keys and no failing serialisers")
}

/// Reads `body` as every message there is; part of [`crate::frame::fuzz`].
pub(crate) fn fuzz_body(body: &[u8]) {
    fn one<P: Payload>(body: &[u8]) {
        let _ = Request::<P>::from_body(body).map(|request| request.to_body());
        let _ = Response::<P::Reply>::from_body(body).map(|response| response.to_body());
    }
    one::<Create>(body);
    one::<Start>(body);
    one::<ExecuteProcess>(body);
    one::<WaitForProcess>(body);
    one::<SignalProcess>(body);
    one::<ResizeConsole>(body);
    one::<GetProperties>(body);
    one::<ModifySettings>(body);
    one::<NegotiateProtocol>(body);
    one::<DumpStacks>(body);
    one::<WaitForOom>(body);
    let _ = ContainerNotification::from_body(body).map(|notification| notification.to_body());
}
