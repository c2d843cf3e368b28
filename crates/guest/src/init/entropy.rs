//! Entropy from the host (GCS bridge protocol §1, port 1).
#![allow(unsafe_code, reason = "crediting entropy is an ioctl without a safe wrapper")]

use std::{fs::File, io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    ioctl::{Setter, ioctl, opcode},
};

/// Bytes read at once.
const CHUNK_BYTES: usize = 512;
/// Most bytes taken: the host sends 512; one that never ends must not hold the boot.
const LIMIT_BYTES: usize = 64 * 1024;

/// `struct rand_pool_info` with room for one chunk.
#[repr(C)]
struct Pool {
    entropy_bits: libc::c_int,
    size_bytes: libc::c_int,
    bytes: [u8; CHUNK_BYTES],
}

/// The request's number is that of the two-integer header alone (`RNDADDENTROPY`, `random(4)`).
const ADD_ENTROPY: rustix::ioctl::Opcode = opcode::write::<[libc::c_int; 2]>(b'R', 3);

/// Reads `stream` to its end and credits every byte with 8 bits.
pub(crate) fn credit(stream: &OwnedFd) -> io::Result<()> {
    let device = File::options().write(true).open("/dev/random")?;
    let mut total = 0;
    let mut bytes = [0; CHUNK_BYTES];
    while total < LIMIT_BYTES {
        let length = match rustix::io::read(stream, &mut bytes) {
            Ok(0) => break,
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        total += length;
        let size = i32::try_from(length).unwrap_or(0);
        let pool = Pool {
            entropy_bits: size * 8,
            size_bytes: size,
            bytes,
        };
        // SAFETY: the kernel reads the header and then `size_bytes` of the bytes after it, all inside `Pool`.
        unsafe { ioctl(&device, Setter::<ADD_ENTROPY, Pool>::new(pool))? };
    }
    Ok(())
}
