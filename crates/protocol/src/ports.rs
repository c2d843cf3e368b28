//! The vsock ports of the protocol (GCS bridge protocol §1). The host listens on each; the guest dials.

/// The host's context id: every guest reaches its host under it.
pub const HOST_CID: u32 = 2;

/// Entropy for the guest's random pool: the host writes random bytes and closes. The guest waits for the end.
pub const ENTROPY: u32 = 1;

/// The agent's log: JSON objects one after another; what follows the last whole object is crash text.
pub const LOG: u32 = 109;

/// Plan 9 shares: one 9P2000.L connection for each mount.
pub const PLAN9: u32 = 564;

/// The bridge: one stream for the whole life of the VM.
pub const BRIDGE: u32 = 0x4000_0000;

/// The first port for standard streams. The host takes the next number for each stream and never reuses one.
pub const FIRST_STDIO: u32 = 0x4000_0001;
