//! Between containerd's messages and the pod's words.

use std::time::{SystemTime, UNIX_EPOCH};

use cofferdam_pod::{Endpoints, PodError, ProcessName, Status};
use cofferdam_protocol::HResult;
use containerd_shim::{
    TtrpcResult,
    api::Status as TaskStatus,
    protos::{
        protobuf::well_known_types::timestamp::Timestamp,
        ttrpc::{self, Code},
    },
};

use crate::OwnerFailure;

/// The process a message names.
pub(crate) fn name(id: &str, exec_id: &str) -> ProcessName {
    match exec_id {
        "" => ProcessName::init(id),
        exec => ProcessName::exec(id, exec),
    }
}

/// Empty paths are absent ones.
pub(crate) fn endpoints(stdin: &str, stdout: &str, stderr: &str, terminal: bool) -> Endpoints {
    let path = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Endpoints {
        stdin: path(stdin),
        stdout: path(stdout),
        stderr: path(stderr),
        terminal,
    }
}

/// containerd's word for a state.
pub(crate) fn status(status: Status) -> TaskStatus {
    match status {
        Status::Created | Status::Starting => TaskStatus::CREATED,
        Status::Running => TaskStatus::RUNNING,
        Status::Paused => TaskStatus::PAUSED,
        Status::Stopped(_) => TaskStatus::STOPPED,
    }
}

/// A moment, as protobuf has it.
#[must_use]
pub fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut stamp = Timestamp::new();
    stamp.seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    stamp.nanos = i32::try_from(since.subsec_nanos()).unwrap_or(0);
    stamp
}

/// A refusal with the code that tells containerd, and its clients, what kind it is.
pub(crate) fn refusal(code: Code, message: impl std::fmt::Display) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, message.to_string()))
}

/// The pod's error as containerd understands it.
pub(crate) trait Answered<T> {
    fn answered(self) -> TtrpcResult<T>;
}

impl<T> Answered<T> for Result<T, PodError> {
    fn answered(self) -> TtrpcResult<T> {
        self.map_err(|error| {
            let code = match &error {
                PodError::NoContainer(_) | PodError::NoProcess(_) | PodError::Finished(_) => Code::NOT_FOUND,
                PodError::Exists(_) => Code::ALREADY_EXISTS,
                PodError::State { .. } | PodError::NoTerminal(_) => Code::FAILED_PRECONDITION,
                PodError::Plan(_)
                | PodError::StreamKind { .. }
                | PodError::Annotation { .. }
                | PodError::Name { .. }
                | PodError::NoSignal(_) => Code::INVALID_ARGUMENT,
                PodError::Guest(error) => match error.result() {
                    Some(HResult::INVALID_ARGUMENT | HResult::INVALID_JSON) => Code::INVALID_ARGUMENT,
                    _ => Code::UNKNOWN,
                },
                _ => Code::UNKNOWN,
            };
            refusal(code, error)
        })
    }
}

impl<T> Answered<T> for Result<T, OwnerFailure> {
    fn answered(self) -> TtrpcResult<T> {
        self.map_err(|error| refusal(Code::UNKNOWN, error))
    }
}
