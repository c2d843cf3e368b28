//! The exit notification of a container (GCS bridge protocol §6).

use serde::{Deserialize, Serialize};

use super::{DecodeError, encode_body};
use crate::{HResult, NULL_CONTAINER_ID, json};

/// Says that a container's init has exited and its streams are drained. Exactly one comes for each container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerNotification {
    /// Which container.
    pub container_id: String,
    /// The activity id of the `Create` request.
    pub activity_id: String,
    /// How it ended.
    pub r#type: NotificationType,
    /// Always `None`, spelled out.
    pub operation: String,
    /// Always success.
    pub result: HResult,
    /// More about the result.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result_info: String,
}

impl Default for ContainerNotification {
    fn default() -> Self {
        Self {
            container_id: String::new(),
            activity_id: NULL_CONTAINER_ID.to_owned(),
            r#type: NotificationType::UnexpectedExit,
            operation: "None".to_owned(),
            result: HResult::OK,
            result_info: String::new(),
        }
    }
}

impl ContainerNotification {
    /// Reads a notification's body.
    pub fn from_body(body: &[u8]) -> Result<Self, DecodeError> {
        json::from_slice(body).map_err(|source| DecodeError {
            what: "container notification",
            source,
        })
    }

    /// The body to send.
    pub fn to_body(&self) -> Vec<u8> {
        encode_body(self)
    }
}

/// How a container ended. The original has more names; a host needs only that the notification came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotificationType {
    /// By itself, normal exits included.
    UnexpectedExit,
    /// After `ShutdownGraceful`.
    GracefulExit,
    /// After `ShutdownForced`.
    ForcedExit,
    /// Any other name.
    #[serde(other)]
    Unknown,
}
