//! Utility VMs under QEMU.
