//! The host side of a utility VM: the trait every backend keeps, and a fake that injects faults.
//!
//! A backend owns exactly one VM. It plugs devices in and out, carries streams, and says when the VM is gone;
//! it decides nothing: which slot, when and in what order is the ledger's business.

pub mod fake;
mod settings;

use std::{collections::BTreeSet, io};

use async_trait::async_trait;
use cofferdam_ledger::{
    address::{Limits, ScsiAddress},
    request::{HostRequest, ShareId},
};
use tokio::io::{AsyncRead, AsyncWrite};

pub use settings::guest_settings;

/// A byte stream between host and guest. `shutdown` half-closes: the peer reads to the end and may go on writing.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Any [`Stream`].
pub type BoxStream = Box<dyn Stream>;

/// Streams that the guest opens to one port of the host. Dropping it refuses further ones.
#[async_trait]
pub trait Listener: Send {
    /// The next stream. Cancel-safe.
    async fn accept(&mut self) -> io::Result<BoxStream>;
}

/// Any [`Listener`].
pub type BoxListener = Box<dyn Listener>;

/// Why a host step failed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The system refused something.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, with the path or device.
        action: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The hypervisor refused a command; its own words.
    #[error("{action}: {reason}")]
    Refused {
        /// What was being done, with the device.
        action: String,
        /// The hypervisor's own message.
        reason: String,
    },
    /// An answer did not come within its limit.
    #[error("{action}: no answer within {limit_ms} ms")]
    TimedOut {
        /// What was being done.
        action: String,
        /// The limit that passed.
        limit_ms: u64,
    },
    /// The VM is gone.
    #[error("the utility VM is gone: {0}")]
    Gone(VmExit),
    /// This backend has no such device.
    #[error("{0}")]
    Unsupported(String),
}

/// How a VM ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmExit {
    /// Whether it ended because it was asked to.
    pub expected: bool,
    /// The process's end in words: `exited with status 1`, `killed by signal 9`.
    pub status: String,
    /// What the hypervisor itself said on standard error.
    pub message: String,
    /// The console's last lines, oldest first.
    pub console_tail: Vec<String>,
}

impl std::fmt::Display for VmExit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.status)?;
        if !self.message.is_empty() {
            write!(f, "; the hypervisor said: {}", self.message.trim_end())?;
        }
        if !self.console_tail.is_empty() {
            write!(f, "; the console's last lines:")?;
            for line in &self.console_tail {
                write!(f, "\n  | {line}")?;
            }
        }
        Ok(())
    }
}

/// What is plugged in now, as the hypervisor itself tells it (not from the backend's memory).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    /// Occupied SCSI addresses.
    pub scsi: BTreeSet<ScsiAddress>,
    /// Occupied persistent-memory devices.
    pub vpmem: BTreeSet<u32>,
    /// Live exports.
    pub shares: BTreeSet<ShareId>,
    /// Other objects the backend made for a device and has not freed (block nodes, memory objects).
    pub leftovers: BTreeSet<String>,
}

impl Devices {
    /// Whether nothing at all is plugged in.
    pub fn is_empty(&self) -> bool {
        self.scsi.is_empty() && self.vpmem.is_empty() && self.shares.is_empty() && self.leftovers.is_empty()
    }
}

/// The host side of one utility VM.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// A short name for messages: `qemu`, `hcs`, `fake`.
    fn name(&self) -> &'static str;

    /// How many devices this VM can hold.
    fn limits(&self) -> Limits;

    /// Listens on a vsock port of the host. Call it before [`Backend::start`] for ports the guest dials at boot.
    async fn listen(&self, port: u32) -> Result<BoxListener, BackendError>;

    /// Starts the VM and returns once the hypervisor answers; the guest may still be booting.
    async fn start(&self) -> Result<(), BackendError>;

    /// Performs one host step. Safe to call for independent devices at the same time. If it fails, whatever it
    /// had done itself is undone, so far as the hypervisor lets it; what is left shows in [`Backend::devices`].
    async fn perform(&self, request: &HostRequest) -> Result<(), BackendError>;

    /// What is plugged in now.
    async fn devices(&self) -> Result<Devices, BackendError>;

    /// Resolves when the VM is gone, at once if it already is. Any number of callers.
    async fn exited(&self) -> VmExit;

    /// Ends the VM now, by force, and frees everything the backend holds (processes, sockets, directories).
    /// Harmless when repeated.
    async fn stop(&self) -> Result<VmExit, BackendError>;
}
