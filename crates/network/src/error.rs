//! What can go wrong.

use std::{io, path::PathBuf};

use cofferdam_netlink::NetlinkError;

/// Why an interface and a tap device could not be joined, or parted.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The system refused something.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The kernel's routing refused something.
    #[error("network namespace {}: {source}", namespace.display())]
    Kernel {
        /// Where.
        namespace: PathBuf,
        /// What was asked for, and the reason.
        #[source]
        source: NetlinkError,
    },
    /// There is no such interface, or none that a VM's adapter can take the place of.
    #[error("network namespace {}: interface {interface:?}: {problem}", namespace.display())]
    Interface {
        /// Where.
        namespace: PathBuf,
        /// Its name.
        interface: String,
        /// What speaks against it.
        problem: &'static str,
    },
    /// More than one thing went wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<NetworkError>),
    /// It is the host's, or this process's own.
    #[error("network namespace {}: it is the host's or this process's own; its loopback addresses stay theirs", namespace.display())]
    OwnNamespace {
        /// Which.
        namespace: PathBuf,
    },
}
