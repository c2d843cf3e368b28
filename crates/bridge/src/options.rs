//! How long the host waits for the guest.

use std::time::Duration;

use cofferdam_protocol::{MessageType, frame::MAX_HOST_FRAME_BYTES, message};

/// How a bridge behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long each kind of call may take.
    pub timeouts: Timeouts,
    /// The largest request, in bytes, header included. A larger one is refused before anything is sent.
    pub max_request_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            max_request_bytes: MAX_HOST_FRAME_BYTES,
        }
    }
}

/// How long each kind of call may take, from the call to its answer; `None` for no limit. A call that takes longer
/// fails alone; the bridge lives on.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// `NegotiateProtocol`.
    pub negotiate: Option<Duration>,
    /// `Create`: the guest runs the OCI runtime.
    pub create: Option<Duration>,
    /// `ExecuteProcess`: the guest dials the standard streams and starts the process.
    pub execute: Option<Duration>,
    /// `ModifySettings`: the guest waits for devices and mounts them.
    pub modify: Option<Duration>,
    /// Everything else, but `WaitForProcess` and the wait for a container to run out of memory, which have no limit.
    pub other: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        const LONG: Option<Duration> = Some(Duration::from_secs(5 * 60));
        const SHORT: Option<Duration> = Some(Duration::from_secs(30));
        Self {
            negotiate: SHORT,
            create: LONG,
            execute: LONG,
            modify: SHORT,
            other: SHORT,
        }
    }
}

impl Timeouts {
    pub(crate) fn of(&self, operation: MessageType) -> Option<Duration> {
        match operation {
            message::NEGOTIATE_PROTOCOL => self.negotiate,
            message::CREATE => self.create,
            message::EXECUTE_PROCESS => self.execute,
            message::MODIFY_SETTINGS => self.modify,
            message::WAIT_FOR_PROCESS | message::WAIT_FOR_OOM => None,
            _ => self.other,
        }
    }
}
