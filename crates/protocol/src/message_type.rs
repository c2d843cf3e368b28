//! The type word of a frame (GCS bridge protocol §3).

use std::fmt;

/// The type word: 4 bits kind, 8 bits category, 12 bits message id, 8 bits version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageType(pub u32);

/// Which way a message goes and whether it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Host to guest; answered by a response with the same frame id.
    Request,
    /// Guest to host, the answer to a request.
    Response,
    /// Guest to host, unasked; its frame id is 0.
    Notification,
    /// None of the three.
    Unknown(u8),
}

impl MessageType {
    /// The version every message of protocol 4 carries in its type word.
    pub const VERSION: u8 = 1;
    /// The category of compute-system messages: all that a Linux guest knows.
    pub const COMPUTE_SYSTEM: u8 = 1;

    /// The request `id` of the compute-system category.
    pub const fn request(id: u16) -> Self {
        Self::new(1, id)
    }

    /// The notification `id` of the compute-system category.
    pub const fn notification(id: u16) -> Self {
        Self::new(3, id)
    }

    const fn new(kind: u32, id: u16) -> Self {
        Self(
            kind << 28
                | (Self::COMPUTE_SYSTEM as u32) << 20
                | (id as u32 & 0xfff) << 8
                | Self::VERSION as u32,
        )
    }

    /// Request, response or notification.
    pub const fn kind(self) -> Kind {
        match (self.0 >> 28) as u8 {
            1 => Kind::Request,
            2 => Kind::Response,
            3 => Kind::Notification,
            other => Kind::Unknown(other),
        }
    }

    /// The category (8 bits).
    pub const fn category(self) -> u8 {
        (self.0 >> 20) as u8
    }

    /// The message id within its category (12 bits).
    pub const fn id(self) -> u16 {
        (self.0 >> 8 & 0xfff) as u16
    }

    /// The version (8 bits).
    pub const fn version(self) -> u8 {
        self.0 as u8
    }

    /// The type of the answer to this request: the same word with kind 2.
    pub const fn response(self) -> Self {
        Self(self.0 & 0x0fff_ffff | 2 << 28)
    }

    /// The operation's name, `None` for a message nobody here knows.
    pub fn name(self) -> Option<&'static str> {
        use crate::message as m;
        if self == m::CONTAINER_NOTIFICATION {
            return Some("ContainerNotification");
        }
        if !matches!(self.kind(), Kind::Request | Kind::Response) {
            return None;
        }
        Some(match Self(self.0 & 0x0fff_ffff | 1 << 28) {
            m::CREATE => "Create",
            m::START => "Start",
            m::SHUTDOWN_GRACEFUL => "ShutdownGraceful",
            m::SHUTDOWN_FORCED => "ShutdownForced",
            m::EXECUTE_PROCESS => "ExecuteProcess",
            m::WAIT_FOR_PROCESS => "WaitForProcess",
            m::SIGNAL_PROCESS => "SignalProcess",
            m::RESIZE_CONSOLE => "ResizeConsole",
            m::GET_PROPERTIES => "GetProperties",
            m::MODIFY_SETTINGS => "ModifySettings",
            m::NEGOTIATE_PROTOCOL => "NegotiateProtocol",
            m::DUMP_STACKS => "DumpStacks",
            m::DELETE_CONTAINER_STATE => "DeleteContainerState",
            m::WAIT_FOR_OOM => "CofferdamWaitForOom",
            _ => return None,
        })
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(name) = self.name() else {
            return write!(f, "message 0x{:08x}", self.0);
        };
        match self.kind() {
            Kind::Response => write!(f, "{name} response"),
            _ => f.write_str(name),
        }
    }
}

impl fmt::Debug for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageType(0x{:08x}, {self})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message as m;

    #[test]
    fn each_message_has_the_type_word_of_the_protocol() {
        for (message_type, word, name) in [
            (m::CREATE, 0x1010_0101, "Create"),
            (m::START, 0x1010_0201, "Start"),
            (m::SHUTDOWN_GRACEFUL, 0x1010_0301, "ShutdownGraceful"),
            (m::SHUTDOWN_FORCED, 0x1010_0401, "ShutdownForced"),
            (m::EXECUTE_PROCESS, 0x1010_0501, "ExecuteProcess"),
            (m::WAIT_FOR_PROCESS, 0x1010_0601, "WaitForProcess"),
            (m::SIGNAL_PROCESS, 0x1010_0701, "SignalProcess"),
            (m::RESIZE_CONSOLE, 0x1010_0801, "ResizeConsole"),
            (m::GET_PROPERTIES, 0x1010_0901, "GetProperties"),
            (m::MODIFY_SETTINGS, 0x1010_0a01, "ModifySettings"),
            (m::NEGOTIATE_PROTOCOL, 0x1010_0b01, "NegotiateProtocol"),
            (m::DUMP_STACKS, 0x1010_0c01, "DumpStacks"),
            (m::DELETE_CONTAINER_STATE, 0x1010_0d01, "DeleteContainerState"),
            (m::WAIT_FOR_OOM, 0x101c_0101, "CofferdamWaitForOom"),
        ] {
            assert_eq!(message_type.0, word, "{name}");
            assert_eq!(message_type.to_string(), name);
            assert_eq!(message_type.kind(), Kind::Request);
            assert_eq!(message_type.response().0, word + 0x1000_0000);
            assert_eq!(message_type.response().kind(), Kind::Response);
            assert_eq!(message_type.response().to_string(), format!("{name} response"));
        }
        assert_eq!(m::CONTAINER_NOTIFICATION.0, 0x3010_0101);
        assert_eq!(m::CONTAINER_NOTIFICATION.kind(), Kind::Notification);
    }

    #[test]
    fn the_word_splits_into_its_fields() {
        let word = MessageType(0x1020_0101);
        assert_eq!(
            (word.kind(), word.category(), word.id(), word.version()),
            (Kind::Request, 2, 1, 1)
        );
        assert_eq!(word.name(), None);
        assert_eq!(MessageType(0xf010_0101).kind(), Kind::Unknown(15));
    }
}
