//! The footer that makes a file a fixed VHD.
//! Source: Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format". Numbers are big-endian.

use cofferdam_image::vhd_checksum;

/// Bytes of the footer.
pub(crate) const FOOTER_BYTES: usize = 512;
const SECTOR: u64 = 512;
/// Where the checksum is.
const CHECKSUM: usize = 64;

/// The footer of a disk of `size` bytes. It names no time and no random number: the same layer gives the same bytes.
pub(crate) fn footer(size: u64, id: [u8; 16]) -> [u8; FOOTER_BYTES] {
    let mut bytes = [0; FOOTER_BYTES];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"conectix");
    put(8, &2u32.to_be_bytes()); // features: only the bit that is always set
    put(12, &0x0001_0000u32.to_be_bytes()); // version 1.0
    put(16, &u64::MAX.to_be_bytes()); // no dynamic header
    // Programs that do not know a creator take the size from the geometry, which is rounded.
    put(28, b"win ");
    put(32, &0x000A_0000u32.to_be_bytes());
    put(36, b"Wi2k");
    put(40, &size.to_be_bytes());
    put(48, &size.to_be_bytes());
    let (cylinders, heads, sectors) = geometry(size / SECTOR);
    put(56, &cylinders.to_be_bytes());
    put(58, &[heads, sectors]);
    put(60, &2u32.to_be_bytes()); // fixed
    put(68, &id);
    let sum = vhd_checksum(&bytes, CHECKSUM);
    bytes[CHECKSUM..CHECKSUM + 4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Cylinders, heads and sectors per track for a number of sectors, as the specification's appendix calculates them.
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let total = sectors.min(65_535 * 16 * 255);
    let (per_track, heads) = if total >= 65_535 * 16 * 63 {
        (255, 16)
    } else {
        let heads = |per_track: u64| (total / per_track).div_ceil(1024).max(4);
        let fits = |per_track: u64, heads: u64| heads <= 16 && total / per_track < heads * 1024;
        if fits(17, heads(17)) {
            (17, heads(17))
        } else if total / 31 < 16 * 1024 {
            (31, 16)
        } else {
            (63, 16)
        }
    };
    let cylinders = total / per_track / heads;
    (cylinders as u16, heads as u8, per_track as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometries_are_those_of_the_specification() {
        assert_eq!(geometry(40 << 11), (963, 5, 17));
        assert_eq!(geometry(10 << 21), (20_805, 16, 63));
        assert_eq!(geometry(u64::MAX), (65_535, 16, 255));
    }
}
