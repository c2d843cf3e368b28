//! The attributes of a tree of mounts that hangs nowhere yet.
#![allow(
    unsafe_code,
    reason = "no safe wrapper has mount_setattr(2), and only it reaches every mount of a detached tree"
)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Cuts every mount of the tree at `tree` off from what is mounted elsewhere later, and makes it read-only if asked.
pub(crate) fn isolate(tree: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 },
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the path is a NUL-terminated literal, and the kernel only reads `attributes`, of the size it is told;
    // both outlive the call. The descriptor is open as long as it is borrowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
