//! Messages about a container, or about the VM as a whole (GCS bridge protocol §6, §7).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    CREATE, DELETE_CONTAINER_STATE, DUMP_STACKS, Empty, GET_PROPERTIES, MODIFY_SETTINGS, OutOfMemory,
    Payload, SHUTDOWN_FORCED, SHUTDOWN_GRACEFUL, START,
};
use crate::{
    MessageType,
    json::{InString, is_zero},
    settings::ModificationRequest,
};

/// Creates a container: its init process is prepared and held. From here on the guest owes exactly one exit
/// notification for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Create {
    /// What to create.
    pub container_config: InString<ContainerConfig>,
}

impl Payload for Create {
    const TYPE: MessageType = CREATE;
    type Reply = Empty;
}

/// What to create.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `Container`, only in the message for the null container (§5 step 6).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system_type: String,
    /// The version of this document; a guest refuses versions below 2.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<SchemaVersion>,
    /// The bundle directory inside the VM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub oci_bundle_path: String,
    /// The OCI runtime spec, paths already those of the VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oci_specification: Option<Value>,
    /// A directory the guest removes when the container's state is deleted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scratch_dir_path: String,
}

/// The version of a settings document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SchemaVersion {
    /// Major part.
    pub major: u32,
    /// Minor part.
    pub minor: u32,
}

impl SchemaVersion {
    /// 2.1: the version to send, and the lowest a guest accepts.
    pub const V2_1: Self = Self { major: 2, minor: 1 };
}

macro_rules! payload_without_members {
    ($($(#[$doc:meta])* $name:ident = $message_type:ident -> $reply:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {}

        impl Payload for $name {
            const TYPE: MessageType = $message_type;
            type Reply = $reply;
        }
    )*};
}

payload_without_members! {
    /// Starts a created container. A Linux guest answers and does nothing: `ExecuteProcess` is the real start.
    Start = START -> Empty;
    /// SIGTERM to a container's init; for the VM: power off, without an answer.
    ShutdownGraceful = SHUTDOWN_GRACEFUL -> Empty;
    /// SIGKILL to a container's init; for the VM: power off, without an answer.
    ShutdownForced = SHUTDOWN_FORCED -> Empty;
    /// Asks for the stacks of the agent's threads.
    DumpStacks = DUMP_STACKS -> DumpStacksReply;
    /// Deletes the container's runtime state, scratch and bundle directories in the guest. It comes after its
    /// layers and mounts are removed.
    DeleteContainerState = DELETE_CONTAINER_STATE -> Empty;
}

/// The stacks of the agent's threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DumpStacksReply {
    /// Text for people.
    pub guest_stacks: String,
}

/// Adds, removes or changes a resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ModifySettings {
    /// Which, and how. Older hosts call the member `v2Request`.
    #[serde(alias = "v2Request")]
    pub request: ModificationRequest,
}

impl Payload for ModifySettings {
    const TYPE: MessageType = MODIFY_SETTINGS;
    type Reply = Empty;
}

/// Asks for properties of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GetProperties {
    /// Which properties; may be an empty text.
    pub query: InString<PropertyQuery>,
}

impl Payload for GetProperties {
    const TYPE: MessageType = GET_PROPERTIES;
    type Reply = GetPropertiesReply;
}

/// Which properties are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PropertyQuery {
    /// Their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub property_types: Vec<PropertyType>,
}

/// A property's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PropertyType {
    /// The container's processes.
    ProcessList,
    /// The container's resource figures.
    Statistics,
    /// Of the VM itself: the mounts made since its agent started. An extension of cofferdam's agent.
    Mounts,
    /// Of the VM itself: the agent's own memory. An extension of cofferdam's agent.
    AgentMemory,
    /// Whether the container ran out of memory. An extension of cofferdam's agent.
    OutOfMemory,
    /// A name nobody here knows: to be ignored with a warning.
    #[serde(other)]
    Unknown,
}

/// Properties of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GetPropertiesReply {
    /// Those that were asked for.
    pub properties: InString<Properties>,
}

/// Properties of a container, or of the VM itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Properties {
    /// The container's processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub process_list: Vec<ProcessDetails>,
    /// Resource figures: a cgroup v1 metrics message as JSON (`pids`, `cpu`, `memory`, …).
    #[serde(rename = "LCOWMetrics", skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Value>,
    /// The VM's mounts since its agent started, in the order the kernel lists them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<GuestMount>>,
    /// How many of them did not fit the answer.
    #[serde(skip_serializing_if = "is_zero")]
    pub mounts_omitted: u64,
    /// The agent's own memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_memory: Option<AgentMemory>,
    /// Whether the container ran out of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<OutOfMemory>,
}

/// One mount of the VM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GuestMount {
    /// Where it is mounted.
    pub path: String,
    /// The source as it was given to the kernel.
    pub source: String,
    /// The type of its file system.
    pub fs_type: String,
    /// Whether the mount or its file system is read-only.
    pub read_only: bool,
}

/// The agent's own memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AgentMemory {
    /// What of it is resident, in bytes; absent where the guest's kernel does not say.
    pub rss_bytes: Option<u64>,
}

/// One process of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ProcessDetails {
    /// Its process id in the VM.
    #[serde(skip_serializing_if = "is_zero")]
    pub process_id: u32,
}
