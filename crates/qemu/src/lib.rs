//! Utility VMs under QEMU.
//!
//! [`QemuBackend`] is one VM: a QEMU process of our own, started without defaults, controlled over QMP, tied to
//! this process so that it never outlives it.
//!
//! * Disks are hot-added to up to four virtio-scsi controllers. Their format is told by [`cofferdam_image`] before QEMU sees
//!   them, and QEMU is never left to guess (docs/decisions/0061-image-formats.md).
//! * Streams to the guest go through a vhost-user vsock device in this process. The Plan 9 server for
//!   shares answers on port [`PLAN9_PORT`].
//! * The console's last lines and QEMU's own words come with the news that the VM is gone.
//!
//! ```no_run
//! # async fn example() -> Result<(), cofferdam_backend::BackendError> {
//! use cofferdam_backend::Backend;
//! use cofferdam_qemu::{QemuBackend, QemuConfig};
//!
//! let vm = QemuBackend::new(QemuConfig::new("/boot/vmlinux", "/boot/initramfs"))?;
//! let mut guest = vm.listen(1073741824).await?;
//! vm.start().await?;
//! tokio::select! {
//!     stream = guest.accept() => drop(stream),
//!     exit = vm.exited() => eprintln!("{exit}"),
//! }
//! vm.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Modules: `boot_files`, `config`, `accelerator`, `command_line`, `checks` say what is started; `process`, `tether`,
//! `console`, `machine` run and watch it; `qmp` speaks to it; `disk`, `hotplug` plug devices, `network` has what is
//! plugged in from the start; `shares`,
//! `transport`, `runtime_dir` are what else a VM needs on the host; `backend` ties them together.

pub mod accelerator;
mod backend;
mod boot_files;
mod checks;
mod command_line;
mod config;
mod console;
mod disk;
mod hotplug;
mod machine;
mod network;
mod process;
mod qmp;
mod runtime_dir;
mod shares;
mod tether;
mod transport;

pub use backend::{PLAN9_PORT, QemuBackend};
pub use boot_files::{BootFiles, BootFilesError};
pub use command_line::{KERNEL_ARGS, Resolved, command_line};
pub use config::{Accelerator, Firmware, QemuConfig, VsockDevice};
pub use network::{
    Forward, MAX_NICS, Nic, NicLink, Protocol, USER_GATEWAY, USER_GUEST, USER_NAME_SERVER, USER_PREFIX_LENGTH,
};
