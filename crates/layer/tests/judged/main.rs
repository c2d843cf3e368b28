//! Layers as others see them: e2fsck, fsck.erofs, veritysetup, and the kernel, whose view of a mounted layer is
//! compared with what tar itself extracts.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod archives;
mod compare;
mod layers;
mod mounts;
mod scratch;
mod trees;
mod verity;
