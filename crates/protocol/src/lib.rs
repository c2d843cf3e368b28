//! The guest bridge protocol, version 4: frames, messages, settings and result codes.
//!
//! The host and the guest agent of a utility VM talk over one byte stream. Each message is a [`frame`]: a 16-byte
//! header and a JSON body. This crate holds the wire types of both sides and nothing that does I/O of its own;
//! it is pure, so the host (asynchronous) and the agent (threads) share it.
//!
//! * [`frame`] cuts a byte stream into frames and back: blocking ([`frame::read_frame`]) or without I/O
//!   ([`frame::Decoder`]).
//! * [`message`] has a payload type for each request. [`message::Payload`] names its message type and its reply.
//! * [`settings`] has what a `ModifySettings` request may carry.
//! * [`annotations`] has what both sides read in a container's document.
//! * [`hresult`] has the result codes, [`ports`] the vsock ports.
//! * [`json`] decodes bodies the lenient way the original does: member names in any letter case, unknown members
//!   ignored, `null` as absent.
//!
//! ```
//! use cofferdam_protocol::{frame, message::{self, Request, SignalProcess}};
//!
//! // The host encodes a request …
//! let request = Request::new("c1", SignalProcess::with_signal(7, 15));
//! let bytes = frame::encode(message::SIGNAL_PROCESS, 3, &request.to_body(), frame::MAX_HOST_FRAME_BYTES)?;
//!
//! // … and the guest reads it.
//! let mut stream = bytes.as_slice();
//! let frame = frame::read_frame(&mut stream, frame::MAX_HOST_FRAME_BYTES)?.expect("one frame was sent");
//! assert_eq!(frame.message_type, message::SIGNAL_PROCESS);
//! let request: Request<SignalProcess> = Request::from_body(&frame.body)?;
//! assert_eq!(request.payload.signal(), 15);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod annotations;
pub mod frame;
pub mod hresult;
pub mod json;
pub mod message;
pub mod message_type;
pub mod ports;
pub mod settings;

pub use hresult::HResult;
pub use message_type::MessageType;

/// The only protocol version this crate speaks.
pub const PROTOCOL_VERSION: u32 = 4;

/// The container id that stands for the utility VM itself, and the activity id of a request without one.
pub const NULL_CONTAINER_ID: &str = "00000000-0000-0000-0000-000000000000";
