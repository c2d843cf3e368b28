//! The host side of the guest bridge protocol.
