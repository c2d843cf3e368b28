//! Disks, layers and shares: what `ModifySettings` asks for (GCS bridge protocol §7).
//!
//! Every removal is idempotent, and what is mounted is read from the kernel's mount table, not remembered.

pub(crate) mod disks;
pub(crate) mod mount_attr;
pub(crate) mod overlay;
pub(crate) mod path;
pub(crate) mod pmem;
pub(crate) mod scsi;
pub(crate) mod share;
pub(crate) mod verity;
