//! Why a call failed.

use std::{fmt, io, sync::Arc, time::Duration};

use cofferdam_protocol::{
    HResult, MessageType, NULL_CONTAINER_ID, PROTOCOL_VERSION,
    frame::FrameError,
    message::{DecodeError, ErrorRecord, ResponseBase},
};

/// Why a call failed. Every message starts with the operation and the container.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The guest tried and failed.
    #[error("{call}: {failure}")]
    Guest {
        /// Which call.
        call: CallContext,
        /// What the guest said.
        #[source]
        failure: Box<GuestFailure>,
    },
    /// No answer came in time. Whether the guest acted is unknown.
    #[error("{call}: no answer from the guest within {} ms", limit.as_millis())]
    TimedOut {
        /// Which call.
        call: CallContext,
        /// The limit that passed.
        limit: Duration,
    },
    /// The connection ended before an answer came. Whether the guest acted is unknown.
    #[error("{call}: the connection to the guest is gone: {reason}")]
    Closed {
        /// Which call.
        call: CallContext,
        /// Why it ended.
        #[source]
        reason: CloseReason,
    },
    /// The request is too large to send; nothing was sent.
    #[error("{call}: the request cannot be sent: {source}")]
    NotSent {
        /// Which call.
        call: CallContext,
        /// Why.
        #[source]
        source: FrameError,
    },
    /// The answer makes no sense.
    #[error("{call}: the guest's answer makes no sense: {source}")]
    BadReply {
        /// Which call.
        call: CallContext,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The answer is one to another kind of request.
    #[error("{call}: the guest answered with a {got}")]
    WrongReply {
        /// Which call.
        call: CallContext,
        /// What came.
        got: MessageType,
    },
    /// The guest chose a version that was not offered.
    #[error("{call}: the guest chose protocol version {version}, where only {PROTOCOL_VERSION} was offered")]
    WrongVersion {
        /// Which call.
        call: CallContext,
        /// What it chose.
        version: u32,
    },
    /// The guest has said that it cannot do this; nothing was sent.
    #[error("{call}: this guest cannot {what}")]
    Unsupported {
        /// Which call.
        call: CallContext,
        /// What it cannot do.
        what: &'static str,
    },
}

impl BridgeError {
    /// The call that failed.
    pub fn call(&self) -> &CallContext {
        match self {
            Self::Guest { call, .. }
            | Self::TimedOut { call, .. }
            | Self::Closed { call, .. }
            | Self::NotSent { call, .. }
            | Self::BadReply { call, .. }
            | Self::WrongReply { call, .. }
            | Self::WrongVersion { call, .. }
            | Self::Unsupported { call, .. } => call,
        }
    }

    /// The guest's own result code, where the guest failed.
    pub fn result(&self) -> Option<HResult> {
        match self {
            Self::Guest { failure, .. } => Some(failure.result),
            _ => None,
        }
    }

    /// Whether the connection is gone, so that no further call can succeed.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

/// Which call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallContext {
    /// The operation.
    pub operation: MessageType,
    /// What it was about, in words (`Add MappedVirtualDisk on /run/gcs/c/1/scratch`, `process 7`); may be empty.
    pub subject: String,
    /// Which container; [`NULL_CONTAINER_ID`] or nothing for the VM itself.
    pub container_id: String,
}

impl fmt::Display for CallContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)?;
        if !self.subject.is_empty() {
            write!(f, " ({})", self.subject)?;
        }
        match self.container_id.as_str() {
            "" | NULL_CONTAINER_ID => f.write_str(" in the utility VM"),
            id => write!(f, " in container {id}"),
        }
    }
}

/// What a guest says of its failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFailure {
    /// The code.
    pub result: HResult,
    /// The message, as it came: untrusted text.
    pub message: String,
    /// The records, as they came.
    pub records: Vec<ErrorRecord>,
}

impl From<ResponseBase> for GuestFailure {
    fn from(base: ResponseBase) -> Self {
        Self {
            result: base.result,
            message: base.error_message,
            records: base.error_records,
        }
    }
}

impl fmt::Display for GuestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the guest failed with {}", self.result)?;
        let message = match (self.message.as_str(), self.records.first()) {
            ("", Some(record)) => record.message.as_str(),
            (message, _) => message,
        };
        if !message.is_empty() {
            write!(f, ": {}", Printable(message))?;
        }
        Ok(())
    }
}

impl std::error::Error for GuestFailure {}

/// Text from the guest, safe to show: a terminal must not obey it.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() && c != '\n' && c != '\t' {
                write!(f, "{}", c.escape_default())?;
            } else {
                fmt::Write::write_char(f, c)?;
            }
        }
        Ok(())
    }
}

/// Why the connection ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CloseReason {
    /// The guest closed it, between two frames: the agent or the VM ended.
    #[error("the guest closed it")]
    Ended,
    /// The guest broke the framing.
    #[error("the guest broke the protocol: {0}")]
    Malformed(#[source] Arc<FrameError>),
    /// The stream failed.
    #[error("{0}")]
    Io(#[source] Arc<io::Error>),
    /// The host let go of its [`crate::Bridge`].
    #[error("the host closed it")]
    Dropped,
}
