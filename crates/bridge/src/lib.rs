//! The host side of the guest bridge protocol, version 4.
//!
//! A [`Bridge`] is one connection to the agent of one utility VM. Two tasks own the stream: one reads, one writes.
//! Calls are numbered, may be in flight together in any number, and are answered in any order. A call may be
//! dropped at any time: its number is forgotten, and a late answer goes nowhere.
//!
//! What the guest may do to the host is bounded. A frame that breaks the framing (GCS bridge protocol §2) ends the
//! bridge, with that reason given to every call in flight. Anything less (a reply nobody waits for, a notification
//! for an unknown container, a reply that is not the JSON it should be) is logged or fails the one call it concerns;
//! the other containers of the VM live on.
//!
//! ```no_run
//! # async fn example(stream: tokio::io::DuplexStream) -> Result<(), Box<dyn std::error::Error>> {
//! use cofferdam_bridge::{Bridge, Options};
//! use cofferdam_protocol::message::{ContainerConfig, ProcessParameters, VsockStdioRelaySettings};
//!
//! let (bridge, negotiated) = Bridge::connect(stream, Options::default()).await?;
//! println!("the guest runs {}", negotiated.runtime_os);
//! let exited = bridge.container_exited("c1"); // before Create, so that no notification is missed
//! bridge.create("c1", ContainerConfig::default()).await?;
//! bridge.start("c1").await?;
//! let stdio = VsockStdioRelaySettings::default();
//! let pid = bridge.execute_process("c1", ProcessParameters::default(), stdio).await?;
//! let exit_code = bridge.wait_for_process("c1", pid).await?;
//! exited.await?;
//! println!("it exited with {exit_code}");
//! # Ok(())
//! # }
//! ```

mod calls;
mod connection;
mod error;
mod exits;
mod limits;
mod options;
mod vm_properties;

pub use calls::{Bridge, Negotiated};
pub use error::{BridgeError, CallContext, CloseReason, GuestFailure};
pub use exits::ContainerExit;
pub use limits::OomEvents;
pub use options::{Options, Timeouts};
pub use vm_properties::GuestMounts;
