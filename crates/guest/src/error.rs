//! What can go wrong in the agent, and the result code each failure carries on the wire.

use std::io;

use cofferdam_mounting::MountError;
use cofferdam_netlink::NetlinkError;
use cofferdam_rootfs::RootfsError;

/// A failure of one request. Its text goes to the host as `ErrorMessage`, causes included.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The system refused something.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, with the path or device.
        action: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The request itself makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The body is not the JSON it should be.
    #[error(transparent)]
    Decode(#[from] cofferdam_protocol::message::DecodeError),
    /// The schema version of a container document is not supported.
    #[error("schema version {0} is below 2.1")]
    SchemaVersion(String),
    /// The host's range of protocol versions does not hold ours.
    #[error("protocol versions {minimum} to {maximum} do not include 4")]
    ProtocolVersion {
        /// Lowest version the host speaks.
        minimum: u32,
        /// Highest version the host speaks.
        maximum: u32,
    },
    /// A message this agent does not know.
    #[error("unknown message 0x{0:08x}")]
    UnknownMessage(u32),
    /// Something came before the protocol version was agreed.
    #[error("message 0x{0:08x} before NegotiateProtocol")]
    NotNegotiated(u32),
    /// The request is known but not served here.
    #[error("{0}")]
    NotSupported(String),
    /// No such container.
    #[error("no container {0:?}")]
    UnknownContainer(String),
    /// The id is taken.
    #[error("container {0:?} exists already")]
    ContainerExists(String),
    /// The container is in a state that does not allow this.
    #[error("{0}")]
    InvalidState(String),
    /// The container's init has already ended.
    #[error("container {0:?} has already stopped")]
    AlreadyStopped(String),
    /// No such process.
    #[error("no process {0}")]
    UnknownProcess(u32),
    /// The process did not end in time.
    #[error("process {pid} was still running after {timeout_ms} ms")]
    WaitTimeout {
        /// The process waited for.
        pid: u32,
        /// The limit the host gave.
        timeout_ms: u32,
    },
    /// A device did not appear.
    #[error("{device} did not appear within {limit_ms} ms: {missing}")]
    DeviceMissing {
        /// The device as the host names it.
        device: String,
        /// How long it was waited for.
        limit_ms: u64,
        /// What was missing at the end.
        missing: String,
    },
    /// Something still uses the device or directory.
    #[error("{what} is busy: {holder}")]
    Busy {
        /// What cannot be let go.
        what: String,
        /// Who holds it.
        holder: String,
    },
    /// The container runtime refused; its own words.
    #[error("{action}: {reason}")]
    Runtime {
        /// What was asked of it.
        action: String,
        /// Its answer, with what it logged.
        reason: String,
    },
}

/// Result of one step of the agent.
pub(crate) type Result<T, E = AgentError> = std::result::Result<T, E>;

impl AgentError {
    /// The HRESULT for the reply (GCS bridge protocol §4).
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Invalid(_) => 0x8007_0057,
            Self::Decode(_) | Self::SchemaVersion(_) => 0xC037_010D,
            Self::ProtocolVersion { .. } => 0xC037_010C,
            Self::UnknownMessage(_) => 0xC037_010B,
            Self::NotNegotiated(_) | Self::NotSupported(_) => 0x8000_4001,
            Self::UnknownContainer(_) => 0xC037_010E,
            Self::ContainerExists(_) => 0xC037_010F,
            Self::AlreadyStopped(_) => 0xC037_0110,
            Self::InvalidState(_) => 0x8037_0105,
            Self::UnknownProcess(_) => 0x8007_0490,
            Self::WaitTimeout { .. } => 0xC037_0109,
            Self::Io { .. } | Self::DeviceMissing { .. } | Self::Busy { .. } | Self::Runtime { .. } => {
                0x8000_4005
            }
        }
    }
}

impl From<MountError> for AgentError {
    fn from(error: MountError) -> Self {
        match error {
            MountError::Io { action, source } => Self::Io { action, source },
            MountError::Invalid(reason) => Self::Invalid(reason),
            MountError::Verity { .. } => Self::Invalid(error.to_string()),
            MountError::Busy { what, holder } => Self::Busy { what, holder },
        }
    }
}

impl From<NetlinkError> for AgentError {
    fn from(error: NetlinkError) -> Self {
        match error {
            NetlinkError::Io { action, source } => Self::Io { action, source },
            NetlinkError::Malformed(action) => Self::Io {
                action,
                source: io::ErrorKind::InvalidData.into(),
            },
            NetlinkError::Address(problem) => Self::Invalid(problem),
        }
    }
}

impl From<RootfsError> for AgentError {
    fn from(error: RootfsError) -> Self {
        match error {
            RootfsError::Io { action, source } => Self::Io { action, source },
            RootfsError::Account(error) => Self::Invalid(error.to_string()),
            RootfsError::Invalid(reason) => Self::Invalid(reason),
        }
    }
}

/// Puts the action beside a system error.
pub(crate) trait During<T> {
    /// Adds what was being done.
    fn during(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> During<T> for std::result::Result<T, E> {
    fn during(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| AgentError::Io {
            action: action(),
            source: error.into(),
        })
    }
}
