//! Agreeing on a version, and what the guest can do (GCS bridge protocol §5).

use serde::{Deserialize, Serialize};

use super::{NEGOTIATE_PROTOCOL, Payload, SchemaVersion};
use crate::{MessageType, PROTOCOL_VERSION, json::is_zero};

/// The first request. Its container id is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NegotiateProtocol {
    /// The lowest version the host speaks.
    pub minimum_version: u32,
    /// The highest version the host speaks.
    pub maximum_version: u32,
}

impl NegotiateProtocol {
    /// Asks for version 4 and no other.
    pub fn version_4() -> Self {
        Self {
            minimum_version: PROTOCOL_VERSION,
            maximum_version: PROTOCOL_VERSION,
        }
    }

    /// The version to use with a host that sent this; `None` where version 4 is outside its range.
    pub fn select(&self) -> Option<u32> {
        (self.minimum_version..=self.maximum_version)
            .contains(&PROTOCOL_VERSION)
            .then_some(PROTOCOL_VERSION)
    }
}

impl Payload for NegotiateProtocol {
    const TYPE: MessageType = NEGOTIATE_PROTOCOL;
    type Reply = NegotiateProtocolReply;
}

/// The version agreed on, and the guest's capabilities.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NegotiateProtocolReply {
    /// The version.
    pub version: u32,
    /// What the guest can do.
    pub capabilities: Capabilities,
}

/// What a guest can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Capabilities {
    /// The host must send `Create` for the null container. A Linux guest says false.
    #[serde(skip_serializing_if = "is_zero")]
    pub send_host_create_message: bool,
    /// The host must send `Start` for the null container. A Linux guest says false.
    #[serde(skip_serializing_if = "is_zero")]
    pub send_host_start_message: bool,
    /// Windows guests only.
    #[serde(skip_serializing_if = "is_zero")]
    pub hv_socket_config_on_startup: bool,
    /// Windows guests only.
    #[serde(skip_serializing_if = "is_zero")]
    pub send_lifecycle_notifications: bool,
    /// Windows guests only.
    #[serde(skip_serializing_if = "is_zero")]
    pub modify_service_settings_supported: bool,
    /// Versions of the settings documents it accepts.
    pub supported_schema_versions: Vec<SchemaVersion>,
    /// `Linux`, or anything else; see [`Capabilities::runtime_os`].
    pub runtime_os_type: String,
    /// The guest's own part: the place for extensions.
    pub guest_defined_capabilities: GuestDefinedCapabilities,
}

impl Capabilities {
    /// The guest's system in lower case; an empty name means `windows`.
    pub fn runtime_os(&self) -> String {
        match self.runtime_os_type.as_str() {
            "" => "windows".to_owned(),
            name => name.to_ascii_lowercase(),
        }
    }
}

/// What a Linux guest says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GuestDefinedCapabilities {
    /// Network adapters can be added and removed while the VM runs.
    #[serde(skip_serializing_if = "is_zero")]
    pub namespace_add_request_supported: bool,
    /// Signals other than SIGKILL and SIGTERM reach processes.
    #[serde(skip_serializing_if = "is_zero")]
    pub signal_process_supported: bool,
    /// `DumpStacks` is answered.
    #[serde(skip_serializing_if = "is_zero")]
    pub dump_stacks_supported: bool,
    /// `DeleteContainerState` is answered.
    #[serde(skip_serializing_if = "is_zero")]
    pub delete_container_state_supported: bool,
    /// [`crate::settings::ContainerMount`] is served. An extension of this project (§13.9).
    #[serde(skip_serializing_if = "is_zero")]
    pub cofferdam_container_mounts: bool,
    /// `GetProperties` of the VM itself knows `Mounts` and `AgentMemory`: an extension of cofferdam's agent.
    #[serde(skip_serializing_if = "is_zero")]
    pub cofferdam_mounts: bool,
    /// Limits of the pod, the freezer, [`super::WaitForOom`] and the property `OutOfMemory` are served: extensions of
    /// this project (§13.9).
    #[serde(skip_serializing_if = "is_zero")]
    pub cofferdam_limits: bool,
    /// The agent's own program, `/proc/self/exe archive CONTAINER PID ORDER` as a process of the VM, copies between a
    /// container's files and its standard streams: an extension of this project (§13.9).
    #[serde(skip_serializing_if = "is_zero")]
    pub cofferdam_copy: bool,
}
