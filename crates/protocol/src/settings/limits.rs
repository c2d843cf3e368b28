//! What containers may use and whether they run (GCS bridge protocol §7.7, and extensions of this project).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::is_zero;

/// New limits of a container, `ContainerConstraints` (§7.7), or of all containers of the VM together,
/// `CofferdamPodLimits`. The second is an extension: only a guest with the capability
/// [`crate::message::GuestDefinedCapabilities::cofferdam_limits`] serves it (§13.9). What is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Constraints {
    /// Windows guests only.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub windows: Value,
    /// `linux.resources` of the OCI runtime specification.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub linux: Value,
}

impl Constraints {
    /// Limits for a Linux guest.
    #[must_use]
    pub fn linux(resources: Value) -> Self {
        Self {
            windows: Value::Null,
            linux: resources,
        }
    }
}

/// Whether the processes of a running container stand still. An extension of this project, as
/// [`Constraints`] of the pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Freezer {
    /// They do.
    #[serde(skip_serializing_if = "is_zero")]
    pub frozen: bool,
}
