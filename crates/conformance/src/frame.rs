//! Frames as the protocol writes them (GCS bridge protocol §2, §3), without a line of the crates under test.
//!
//! | Offset | Size | Field |
//! |---|---|---|
//! | 0 | 4 | type word |
//! | 4 | 4 | size of header and body in bytes, little-endian |
//! | 8 | 8 | id |

use std::io::{self, Read};

/// Size of the header in bytes.
pub const HEADER_BYTES: usize = 16;
/// The largest frame an agent may send, header included.
pub const MAX_AGENT_FRAME_BYTES: u32 = 65_536;

/// The type words of §3, as they are on the wire.
pub mod word {
    /// Create.
    pub const CREATE: u32 = 0x1010_0101;
    /// Start.
    pub const START: u32 = 0x1010_0201;
    /// ShutdownGraceful.
    pub const SHUTDOWN_GRACEFUL: u32 = 0x1010_0301;
    /// ShutdownForced.
    pub const SHUTDOWN_FORCED: u32 = 0x1010_0401;
    /// ExecuteProcess.
    pub const EXECUTE_PROCESS: u32 = 0x1010_0501;
    /// WaitForProcess.
    pub const WAIT_FOR_PROCESS: u32 = 0x1010_0601;
    /// SignalProcess.
    pub const SIGNAL_PROCESS: u32 = 0x1010_0701;
    /// ResizeConsole.
    pub const RESIZE_CONSOLE: u32 = 0x1010_0801;
    /// GetProperties.
    pub const GET_PROPERTIES: u32 = 0x1010_0901;
    /// ModifySettings.
    pub const MODIFY_SETTINGS: u32 = 0x1010_0a01;
    /// NegotiateProtocol.
    pub const NEGOTIATE_PROTOCOL: u32 = 0x1010_0b01;
    /// DumpStacks.
    pub const DUMP_STACKS: u32 = 0x1010_0c01;
    /// DeleteContainerState.
    pub const DELETE_CONTAINER_STATE: u32 = 0x1010_0d01;
    /// The one notification.
    pub const CONTAINER_NOTIFICATION: u32 = 0x3010_0101;
}

/// The result codes of §4, as unsigned numbers; on the wire they are signed.
pub mod code {
    /// Not implemented.
    pub const NOT_IMPLEMENTED: u32 = 0x8000_4001;
    /// Unknown process.
    pub const UNKNOWN_PROCESS: u32 = 0x8007_0490;
    /// WaitForProcess timed out.
    pub const WAIT_TIMEOUT: u32 = 0xC037_0109;
    /// Unknown message.
    pub const UNKNOWN_MESSAGE: u32 = 0xC037_010B;
    /// Protocol range not acceptable.
    pub const PROTOCOL_VERSION: u32 = 0xC037_010C;
    /// Bad JSON, or a schema version below 2.1.
    pub const BAD_JSON: u32 = 0xC037_010D;
    /// Unknown container.
    pub const UNKNOWN_CONTAINER: u32 = 0xC037_010E;
    /// The container id exists.
    pub const CONTAINER_EXISTS: u32 = 0xC037_010F;
    /// Already stopped.
    pub const ALREADY_STOPPED: u32 = 0xC037_0110;
}

/// The container id that means the VM itself.
pub const VM: &str = "00000000-0000-0000-0000-000000000000";
/// The activity id that a host sends.
pub const NO_ACTIVITY: &str = "00000000-0000-0000-0000-000000000000";

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The type word.
    pub word: u32,
    /// The id.
    pub id: u64,
    /// The body.
    pub body: Vec<u8>,
}

/// A header with any size field.
#[must_use]
pub fn header(word: u32, size: u32, id: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&word.to_le_bytes());
    bytes[4..8].copy_from_slice(&size.to_le_bytes());
    bytes[8..].copy_from_slice(&id.to_le_bytes());
    bytes
}

/// A whole frame.
#[must_use]
pub fn encode(word: u32, id: u64, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut bytes = header(word, size, id).to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// What comes of an agent's stream.
#[derive(Debug)]
pub enum Incoming {
    /// A frame within the limits.
    Frame(Frame),
    /// The stream's end between two frames, or the system's reason.
    Closed(String),
    /// Something that is no frame, or one larger than allowed; nothing after it can be read.
    Violation(String),
}

/// Reads the next frame of an agent.
pub fn read(stream: &mut impl Read) -> Incoming {
    let mut head = [0; HEADER_BYTES];
    match fill(stream, &mut head) {
        Ok(0) => return Incoming::Closed("the agent closed the stream".into()),
        Ok(HEADER_BYTES) => {}
        Ok(length) => return Incoming::Violation(format!("the stream ended {length} bytes into a header")),
        Err(error) => return Incoming::Closed(error.to_string()),
    }
    let four = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (word, size) = (four(0), four(4));
    let id = u64::from(four(8)) | u64::from(four(12)) << 32;
    if size > MAX_AGENT_FRAME_BYTES {
        return Incoming::Violation(format!(
            "a frame 0x{word:08x} of {size} bytes: an agent's frame has at most {MAX_AGENT_FRAME_BYTES}, header included"
        ));
    }
    let Some(length) = (size as usize).checked_sub(HEADER_BYTES) else {
        return Incoming::Violation(format!(
            "a frame 0x{word:08x} of {size} bytes: a header alone has 16"
        ));
    };
    let mut body = vec![0; length];
    match fill(stream, &mut body) {
        Ok(got) if got == length => Incoming::Frame(Frame { word, id, body }),
        Ok(got) => Incoming::Violation(format!(
            "the stream ended {got} bytes into a body of {length} (frame 0x{word:08x}, id {id})"
        )),
        Err(error) => Incoming::Closed(error.to_string()),
    }
}

/// Reads until `buffer` is full or the stream ends; how many bytes came.
fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_of_the_protocol_is_written_byte_for_byte() {
        // §11: NegotiateProtocol with a body of 120 bytes, id 0.
        let frame = encode(word::NEGOTIATE_PROTOCOL, 0, &[b' '; 120]);
        assert_eq!(
            frame[..16],
            [0x01, 0x0b, 0x10, 0x10, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(frame.len(), 136);
    }

    #[test]
    fn frames_outside_the_limits_are_violations_and_the_largest_is_not() {
        let violates = |bytes: &[u8]| matches!(read(&mut &bytes[..]), Incoming::Violation(_));
        assert!(violates(&header(1, 15, 0)));
        assert!(violates(&header(1, 65_537, 0)));
        assert!(violates(&header(1, 17, 0)));
        assert!(violates(&header(1, 16, 0)[..9]));
        assert!(matches!(read(&mut &[][..]), Incoming::Closed(_)));
        let largest = encode(1, u64::MAX - 1, &[b'x'; 65_520]);
        let Incoming::Frame(frame) = read(&mut &largest[..]) else {
            panic!("the largest frame is one");
        };
        assert_eq!(
            (frame.word, frame.id, frame.body.len()),
            (1, u64::MAX - 1, 65_520)
        );
    }
}
