//! VHD: the 512-byte footer, and the header of the dynamic kind.
//! Source: Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format" and "Dynamic Disk Header
//! Format". Numbers are big-endian.

use super::{array, be_u32, be_u64};

/// Length of the footer, in bytes.
pub(super) const FOOTER_LEN: usize = 512;
/// Length of the dynamic disk's header, in bytes.
pub(super) const DYNAMIC_HEADER_LEN: usize = 1024;
/// The footer's first bytes.
pub(super) const COOKIE: &[u8; 8] = b"conectix";
const DYNAMIC_COOKIE: &[u8; 8] = b"cxsparse";
/// Only this version was ever published.
const VERSION_1: u32 = 0x0001_0000;
const SECTOR: u64 = 512;
/// The format's own limit is 2040 GiB; what lies above is damage.
const MAX_SIZE: u64 = 2040 << 30;

/// Which of the three kinds a footer announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fixed,
    Dynamic,
}

/// What a footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) kind: Kind,
    /// "Current Size", in bytes: what the guest sees.
    pub(super) current_size: u64,
    /// Where the dynamic header lies, in bytes from the file's beginning. Meaningless for a fixed disk.
    pub(super) data_offset: u64,
}

/// Reads a footer, or says what is wrong with it.
pub(super) fn footer(bytes: &[u8; FOOTER_LEN]) -> Result<Footer, String> {
    if !bytes.starts_with(COOKIE) {
        return Err("it has no VHD footer".to_owned());
    }
    if be_u32(bytes, 64) != Some(checksum(bytes, 64)) {
        return Err("the VHD footer's checksum is wrong".to_owned());
    }
    match be_u32(bytes, 12) {
        Some(VERSION_1) => {}
        version => {
            return Err(format!(
                "the VHD footer has version {:#x}",
                version.unwrap_or_default()
            ));
        }
    }
    let kind = match be_u32(bytes, 60) {
        Some(2) => Kind::Fixed,
        Some(3) => Kind::Dynamic,
        Some(4) => return Err("it is a differencing VHD: its data lies in another file".to_owned()),
        other => {
            return Err(format!(
                "the VHD footer has disk type {}",
                other.unwrap_or_default()
            ));
        }
    };
    let current_size = be_u64(bytes, 48).unwrap_or_default();
    if current_size == 0 || !current_size.is_multiple_of(SECTOR) || current_size > MAX_SIZE {
        return Err(format!("the VHD footer states a size of {current_size} bytes"));
    }
    Ok(Footer {
        kind,
        current_size,
        data_offset: be_u64(bytes, 16).unwrap_or_default(),
    })
}

/// Checks a dynamic disk's header.
pub(super) fn dynamic_header(bytes: &[u8; DYNAMIC_HEADER_LEN]) -> Result<(), String> {
    if array::<8>(bytes, 0).as_ref() != Some(DYNAMIC_COOKIE) {
        return Err("the dynamic VHD's header is missing".to_owned());
    }
    if be_u32(bytes, 36) != Some(checksum(bytes, 36)) {
        return Err("the dynamic VHD header's checksum is wrong".to_owned());
    }
    match be_u32(bytes, 32) {
        Some(block) if block.is_power_of_two() && block >= 512 => Ok(()),
        block => Err(format!(
            "the dynamic VHD states blocks of {} bytes",
            block.unwrap_or_default()
        )),
    }
}

/// The checksum of a footer or header: one's complement of the sum of all bytes but the checksum's own four, from `at` on.
pub fn checksum(bytes: &[u8], at: usize) -> u32 {
    let sum = bytes
        .iter()
        .enumerate()
        .filter(|(offset, _)| !(at..at + 4).contains(offset))
        .fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)));
    !sum
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A footer as a careful writer makes it.
    pub(in super::super) fn sample_footer(kind: u32, size: u64) -> [u8; FOOTER_LEN] {
        let mut bytes = [0; FOOTER_LEN];
        bytes[..8].copy_from_slice(COOKIE);
        bytes[8..12].copy_from_slice(&2u32.to_be_bytes());
        bytes[12..16].copy_from_slice(&VERSION_1.to_be_bytes());
        bytes[16..24].copy_from_slice(&u64::MAX.to_be_bytes());
        bytes[40..48].copy_from_slice(&size.to_be_bytes());
        bytes[48..56].copy_from_slice(&size.to_be_bytes());
        bytes[60..64].copy_from_slice(&kind.to_be_bytes());
        let sum = checksum(&bytes, 64);
        bytes[64..68].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    #[test]
    fn fixed_footer_gives_the_current_size() {
        let read = footer(&sample_footer(2, 1 << 20)).expect("valid");
        assert_eq!((read.kind, read.current_size), (Kind::Fixed, 1 << 20));
    }

    #[test]
    fn differencing_disk_is_refused_as_its_parent_is_another_file() {
        assert!(
            footer(&sample_footer(4, 1 << 20))
                .unwrap_err()
                .contains("differencing")
        );
    }

    #[test]
    fn one_flipped_bit_is_noticed() {
        let mut bytes = sample_footer(2, 1 << 20);
        bytes[51] ^= 1;
        assert!(footer(&bytes).unwrap_err().contains("checksum"));
    }

    #[test]
    fn sizes_that_are_no_whole_sectors_are_refused() {
        assert!(
            footer(&sample_footer(2, 1000))
                .unwrap_err()
                .contains("1000 bytes")
        );
        assert!(footer(&sample_footer(2, 0)).is_err());
        assert!(footer(&sample_footer(2, u64::MAX - 511)).is_err());
    }
}
