//! The loop driver's calls (`linux/loop.h`, loop(4)).
#![allow(
    unsafe_code,
    reason = "no maintained crate wraps LOOP_CONFIGURE without a C binding generator; the four calls are here alone"
)]

use std::{ffi::c_void, os::fd::AsFd};

use rustix::ioctl::{Getter, Ioctl, IoctlOutput, NoArg, Opcode, Setter, ioctl};

const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;

/// Bytes of a loop device's name for its file, terminator included.
pub(crate) const NAME_BYTES: usize = 64;
/// The device refuses writes.
pub(crate) const READ_ONLY: u32 = 1;
/// The device lets go of its file when its last user closes it.
pub(crate) const AUTOCLEAR: u32 = 4;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    pub(crate) file_name: [u8; NAME_BYTES],
    crypt_name: [u8; NAME_BYTES],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl Default for Info {
    fn default() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; NAME_BYTES],
            crypt_name: [0; NAME_BYTES],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

impl Info {
    /// `size_limit`: bytes of the file that are shown; 0 for all.
    pub(crate) fn new(size_limit: u64, flags: u32, file_name: [u8; NAME_BYTES]) -> Self {
        Self {
            size_limit,
            flags,
            file_name,
            ..Self::default()
        }
    }
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Config {
    fd: u32,
    /// 0: the driver's own choice.
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

impl Config {
    /// `fd`: the file's descriptor.
    pub(crate) fn new(fd: u32, info: Info) -> Self {
        Self {
            fd,
            info,
            ..Self::default()
        }
    }
}

/// The number of a device that is free now.
pub(crate) fn free_number(control: impl AsFd) -> rustix::io::Result<u32> {
    struct GetFree;

    // SAFETY: the call takes no argument and returns a number; nothing is written through the pointer.
    unsafe impl Ioctl for GetFree {
        type Output = u32;
        const IS_MUTATING: bool = false;

        fn opcode(&self) -> Opcode {
            LOOP_CTL_GET_FREE
        }

        fn as_ptr(&mut self) -> *mut c_void {
            std::ptr::null_mut()
        }

        unsafe fn output_from_ptr(number: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
            u32::try_from(number).map_err(|_| rustix::io::Errno::INVAL)
        }
    }

    // SAFETY: as above.
    unsafe { ioctl(control, GetFree) }
}

/// Gives a free device its file, with everything about it, in one step.
pub(crate) fn configure(device: impl AsFd, config: Config) -> rustix::io::Result<()> {
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, whose layout `Config` has.
    unsafe { ioctl(device, Setter::<LOOP_CONFIGURE, Config>::new(config)) }
}

/// What a device says of itself; ENXIO where it has no file.
pub(crate) fn status(device: impl AsFd) -> rustix::io::Result<Info> {
    // SAFETY: LOOP_GET_STATUS64 writes one `struct loop_info64`, whose layout `Info` has; every bit pattern of it is
    // valid.
    unsafe { ioctl(device, Getter::<LOOP_GET_STATUS64, Info>::new()) }
}

/// Takes a device's file away as soon as nobody uses the device.
pub(crate) fn clear(device: impl AsFd) -> rustix::io::Result<()> {
    // SAFETY: LOOP_CLR_FD takes no argument.
    unsafe { ioctl(device, NoArg::<LOOP_CLR_FD>::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_the_kernels() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
        assert_eq!(std::mem::offset_of!(Info, file_name), 56);
        assert_eq!(std::mem::offset_of!(Config, info), 8);
    }
}
