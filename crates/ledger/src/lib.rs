//! What a utility VM has given away: a generic machine of slots, without I/O.

pub mod address;
pub mod request;
