//! What a utility VM under QEMU is made of.

use std::{ffi::OsString, path::PathBuf};

use cofferdam_ledger::address::{DEFAULT_VPMEM_MAX_BYTES, Limits, MAX_SCSI_CONTROLLERS};

use crate::network::Nic;

/// How the guest's instructions are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accelerator {
    /// KVM where it is sure to work, else TCG: see [`crate::accelerator`].
    #[default]
    Auto,
    /// KVM, whatever the host looks like.
    Kvm,
    /// QEMU's own translation.
    Tcg,
}

/// What runs before the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Firmware {
    /// qboot for an uncompressed kernel where QEMU's package has it, else QEMU's default. qboot saves 0.07 s.
    #[default]
    Auto,
    /// QEMU's default (SeaBIOS).
    Default,
    /// This file.
    File(PathBuf),
}

/// How streams reach the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VsockDevice {
    /// A vhost-user device inside this process.
    #[default]
    VhostUser,
    /// None: nothing can be listened for. For tests of the machine itself.
    None,
}

/// The settings of one VM.
#[derive(Debug, Clone)]
pub struct QemuConfig {
    /// QEMU's binary: a path, or a name looked up in `PATH`.
    pub program: OsString,
    /// The kernel: an uncompressed `vmlinux` with a PVH entry, or a bzImage. `None` starts a machine that only
    /// waits, for tests.
    pub kernel: Option<PathBuf>,
    /// The initial memory file system.
    pub initramfs: Option<PathBuf>,
    /// Added to the kernel's command line, after ours.
    pub kernel_args: Vec<String>,
    /// The guest's memory in bytes; rounded up to whole MiB.
    pub memory_bytes: u64,
    /// Virtual CPUs, from 1.
    pub cpus: u32,
    /// How instructions are run.
    pub accelerator: Accelerator,
    /// What runs before the kernel.
    pub firmware: Firmware,
    /// How many devices the VM can hold. `scsi_controllers` 1 to 4. `vpmem_devices` is 0 by default, as QEMU
    /// cannot take such a device out again: docs/decisions/0060-vpmem-on-qemu.md.
    pub limits: Limits,
    /// How streams reach the guest.
    pub vsock: VsockDevice,
    /// Network adapters; none by default.
    pub network: Vec<Nic>,
    /// The guest's context identifier, from 3.
    pub guest_cid: u64,
    /// Where the VM's private directory is made; `None` takes `$XDG_RUNTIME_DIR`, `/run` or `/tmp`. Keep it
    /// short: a socket's path has at most 107 bytes.
    pub runtime_dir: Option<PathBuf>,
    /// Keep that directory, with console log, QEMU's messages and its command line, if the VM ends unasked.
    pub keep_on_failure: bool,
}

impl QemuConfig {
    /// The defaults: 512 MiB, one CPU, 4 SCSI controllers, no VPMEM.
    pub fn new(kernel: impl Into<PathBuf>, initramfs: impl Into<PathBuf>) -> Self {
        Self {
            kernel: Some(kernel.into()),
            initramfs: Some(initramfs.into()),
            ..Self::default()
        }
    }
}

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            program: "qemu-system-x86_64".into(),
            kernel: None,
            initramfs: None,
            kernel_args: Vec::new(),
            memory_bytes: 512 << 20,
            cpus: 1,
            accelerator: Accelerator::Auto,
            firmware: Firmware::Auto,
            limits: Limits {
                scsi_controllers: MAX_SCSI_CONTROLLERS,
                vpmem_devices: 0,
                vpmem_max_bytes: DEFAULT_VPMEM_MAX_BYTES,
            },
            vsock: VsockDevice::VhostUser,
            network: Vec::new(),
            guest_cid: 3,
            runtime_dir: None,
            keep_on_failure: false,
        }
    }
}
