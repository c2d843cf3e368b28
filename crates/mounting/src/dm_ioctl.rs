//! The device mapper's calls (`linux/dm-ioctl.h`): one buffer with a header and, behind it, what the call takes or
//! gives. The buffer is built and read as bytes; only the call itself is unsafe.
#![allow(
    unsafe_code,
    reason = "the maintained crate for the device mapper needs a C binding generator; the one call is here alone"
)]

use std::{fs::File, io};

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// Bytes of `struct dm_ioctl`, of which the opcodes are made.
const HEADER: usize = 312;
/// Bytes of `struct dm_target_spec`.
const TARGET: usize = 40;
/// Bytes of the whole buffer: tables of one target fit, salt of 256 bytes in hexadecimal included.
const BUFFER: usize = 4096;
/// Version 4.0.0 is in every kernel since 2.6.
const VERSION: u32 = 4;
const GROUP: u8 = 0xfd;

/// Bytes of a name, terminator included.
const NAME: std::ops::Range<usize> = 48..176;
const DATA_SIZE_AT: usize = 12;
const DATA_START_AT: usize = 16;
const TARGET_COUNT_AT: usize = 20;
const OPEN_COUNT_AT: usize = 24;
const FLAGS_AT: usize = 28;
const DEVICE_AT: usize = 40;

/// The device, or the table that is loaded, refuses writes.
pub(crate) const READ_ONLY: u32 = 1;
/// A status is the table rather than what the target reports.
pub(crate) const STATUS_TABLE: u32 = 1 << 4;
/// Set by the kernel: the answer did not fit.
const BUFFER_FULL: u32 = 1 << 8;

/// One call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Create,
    Remove,
    /// With no flag: resume, which makes the loaded table the one in use.
    Suspend,
    Status,
    TableLoad,
    TableStatus,
}

/// `struct dm_ioctl` and the data behind it. The kernel wants it aligned as a `u64` is.
#[repr(C, align(8))]
struct Buffer([u8; BUFFER]);

/// A target of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Length in sectors of 512 bytes.
    pub(crate) sectors: u64,
    pub(crate) kind: String,
    pub(crate) parameters: String,
}

/// What the kernel answers.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `dev_t` in the kernel's own packing (`huge_encode_dev`).
    pub(crate) device: u64,
    pub(crate) open_count: u32,
    /// The first target of a status.
    pub(crate) target: Option<Target>,
}

/// Makes a call for the device `name`, with a target where one is loaded.
pub(crate) fn call(
    control: &File,
    what: Call,
    name: &str,
    flags: u32,
    target: Option<&Target>,
) -> io::Result<Answer> {
    let mut buffer = fill(name, flags, target).ok_or(io::ErrorKind::InvalidInput)?;
    match what {
        Call::Create => perform::<{ code(3) }>(control, &mut buffer),
        Call::Remove => perform::<{ code(4) }>(control, &mut buffer),
        Call::Suspend => perform::<{ code(6) }>(control, &mut buffer),
        Call::Status => perform::<{ code(7) }>(control, &mut buffer),
        Call::TableLoad => perform::<{ code(9) }>(control, &mut buffer),
        Call::TableStatus => perform::<{ code(12) }>(control, &mut buffer),
    }?;
    Ok(read(&buffer))
}

const fn code(number: u8) -> Opcode {
    opcode::read_write::<[u8; HEADER]>(GROUP, number)
}

fn perform<const CODE: Opcode>(control: &File, buffer: &mut Buffer) -> io::Result<()> {
    // SAFETY: every call of the device mapper reads and writes one `struct dm_ioctl` and what lies behind it, within the
    // number of bytes its member `data_size` says; `fill` puts the buffer's own length there. The buffer is aligned
    // and outlives the call, and all its bytes may have any value.
    Ok(unsafe { ioctl(control, Updater::<CODE, Buffer>::new(buffer)) }?)
}

/// The buffer of a call; `None` if something does not fit.
fn fill(name: &str, flags: u32, target: Option<&Target>) -> Option<Buffer> {
    let mut bytes = [0; BUFFER];
    put(&mut bytes, 0, &VERSION.to_ne_bytes())?;
    put(
        &mut bytes,
        DATA_SIZE_AT,
        &u32::try_from(BUFFER).ok()?.to_ne_bytes(),
    )?;
    put(
        &mut bytes,
        DATA_START_AT,
        &u32::try_from(HEADER).ok()?.to_ne_bytes(),
    )?;
    put(&mut bytes, FLAGS_AT, &flags.to_ne_bytes())?;
    if name.is_empty() || name.len() >= NAME.len() || name.contains(['/', '\0']) {
        return None;
    }
    put(&mut bytes, NAME.start, name.as_bytes())?;
    if let Some(target) = target {
        put(&mut bytes, TARGET_COUNT_AT, &1_u32.to_ne_bytes())?;
        // sector_start, length, status, next, target_type; then the parameters, terminated.
        put(&mut bytes, HEADER + 8, &target.sectors.to_ne_bytes())?;
        if target.kind.len() >= 16 || target.parameters.contains('\0') {
            return None;
        }
        put(&mut bytes, HEADER + 24, target.kind.as_bytes())?;
        let at = HEADER + TARGET;
        if at + target.parameters.len() >= BUFFER {
            return None;
        }
        put(&mut bytes, at, target.parameters.as_bytes())?;
    }
    Some(Buffer(bytes))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Option<()> {
    bytes.get_mut(at..at + value.len())?.copy_from_slice(value);
    Some(())
}

fn read(Buffer(bytes): &Buffer) -> Answer {
    let array = |at: usize| {
        bytes
            .get(at..at + 8)
            .and_then(|part| <[u8; 8]>::try_from(part).ok())
    };
    let wide = |at: usize| array(at).map_or(0, u64::from_ne_bytes);
    let narrow = |at: usize| {
        let part = bytes
            .get(at..at + 4)
            .and_then(|part| <[u8; 4]>::try_from(part).ok());
        part.map_or(0, u32::from_ne_bytes)
    };
    let text = |from: usize, to: usize| {
        let part = bytes.get(from..to).unwrap_or_default();
        let part = part.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(part).into_owned()
    };
    let has_target = narrow(TARGET_COUNT_AT) > 0 && narrow(FLAGS_AT) & BUFFER_FULL == 0;
    let at = narrow(DATA_START_AT) as usize;
    Answer {
        device: wide(DEVICE_AT),
        open_count: narrow(OPEN_COUNT_AT),
        target: has_target.then(|| Target {
            sectors: wide(at.saturating_add(8)),
            kind: text(at.saturating_add(24), at.saturating_add(TARGET)),
            parameters: text(at.saturating_add(TARGET), BUFFER),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_was_written() {
        let target = Target {
            sectors: 304,
            kind: "verity".into(),
            parameters: "1 8:0 8:0 4096 4096 38 39 sha256 af ab".into(),
        };
        let buffer = fill("verity-0-3", READ_ONLY, Some(&target)).unwrap();
        assert_eq!(read(&buffer).target, Some(target));
        assert_eq!(&buffer.0[NAME.start..NAME.start + 11], b"verity-0-3\0");
    }

    #[test]
    fn what_does_not_fit_is_no_call() {
        assert!(fill(&"x".repeat(128), 0, None).is_none());
        assert!(fill("", 0, None).is_none());
        assert!(fill("a/b", 0, None).is_none());
        let long = Target {
            sectors: 1,
            kind: "verity".into(),
            parameters: "x".repeat(BUFFER - HEADER - TARGET),
        };
        assert!(fill("n", 0, Some(&long)).is_none());
    }

    #[test]
    fn opcodes_are_the_kernels() {
        // _IOWR(0xfd, 3, struct dm_ioctl), as strace(1) shows it.
        assert_eq!(code(3), 0xc138_fd03);
    }
}
