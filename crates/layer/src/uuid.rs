//! UUIDs made of what they stand for: the same layer has the same, and no other has it.

use sha2::{Digest, Sha256};

/// The UUID of what was digested (RFC 9562 §5.8: one of our own making).
pub(crate) fn of(digest: Sha256) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest.finalize()[..16]);
    uuid[6] = uuid[6] & 0x0F | 0x80;
    uuid[8] = uuid[8] & 0x3F | 0x80;
    uuid
}
