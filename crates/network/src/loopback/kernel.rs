//! Three requests of `bpf(2)`.
#![allow(
    unsafe_code,
    reason = "no maintained crate loads instructions that are not in an object file; bpf(2) has no wrapper in rustix or libc"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use super::program::{Instruction, bytes};

/// Commands of `bpf(2)`.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const PROGRAM_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;

/// `BPF_MAP_TYPE_SOCKMAP`, `BPF_PROG_TYPE_SK_LOOKUP`, `BPF_SK_LOOKUP`.
const SOCKET_MAP: u32 = 15;
const LOOKUP_PROGRAM: u32 = 30;
const AT_LOOKUP: u32 = 36;

/// What the program is said to be under. None of the helpers it calls asks for a particular one.
const LICENSE: &std::ffi::CStr = c"Apache-2.0";

/// The head of `union bpf_attr` for a map.
#[repr(C)]
struct MapAttributes {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
}

/// … for an entry of a map.
#[repr(C)]
struct EntryAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// … for a program, up to `expected_attach_type`.
#[repr(C)]
struct ProgramAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// … for a link.
#[repr(C)]
struct LinkAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// A map with one entry, `socket`. A socket that is closed leaves it.
pub(super) fn map_of(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attributes = MapAttributes {
        kind: SOCKET_MAP,
        key_bytes: 4,
        value_bytes: 8,
        entries: 1,
    };
    let map = opened(MAP_CREATE, &attributes)?;
    let (key, value) = (0_u32, u64::from(number(socket)));
    let attributes = EntryAttributes {
        map: number(map.as_fd()),
        padding: 0,
        key: address(&key),
        value: address(&value),
        flags: 0,
    };
    perform(MAP_UPDATE, &attributes)?;
    Ok(map)
}

/// The program, checked and taken by the kernel.
pub(super) fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let instructions = bytes(program);
    let mut name = [0; 16];
    name[..9].copy_from_slice(b"cofferdam");
    let attributes = ProgramAttributes {
        kind: LOOKUP_PROGRAM,
        count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: address(instructions.as_slice()),
        license: address(LICENSE.to_bytes_with_nul()),
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
        interface: 0,
        attach_type: AT_LOOKUP,
    };
    opened(PROGRAM_LOAD, &attributes)
}

/// Has a network namespace ask the program, as long as the link is open.
pub(super) fn attach(program: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attributes = LinkAttributes {
        program: number(program),
        target: number(namespace),
        attach_type: AT_LOOKUP,
        flags: 0,
    };
    opened(LINK_CREATE, &attributes)
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    // One that is open is not negative.
    descriptor.as_raw_fd().unsigned_abs()
}

fn address<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>().addr() as u64
}

/// A command that gives a new descriptor.
fn opened<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    let descriptor = perform(command, attributes)?;
    // SAFETY: the commands that come here give a new descriptor, closed on exec, that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn perform<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads as many bytes as it is told, of a value that lives until the call is over, and so do the
    // values whose addresses are in it: each is a local variable or a parameter of the caller. It writes to none of them.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match libc::c_int::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}
