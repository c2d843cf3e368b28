//! CRC-32C (Castagnoli), as MS-VHDX §2.2.2 wants it over headers and region tables.

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                (value >> 1) ^ 0x82f6_3b78
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

/// The checksum of `bytes` with the four bytes from `zeroed` on taken as zero: structures hold their own
/// checksum, and it does not count.
pub fn checksum_without(bytes: &[u8], zeroed: usize) -> u32 {
    let mut crc = u32::MAX;
    for (offset, byte) in bytes.iter().enumerate() {
        let byte = if (zeroed..zeroed.saturating_add(4)).contains(&offset) {
            0
        } else {
            *byte
        };
        crc = (crc >> 8) ^ TABLE[usize::from((crc as u8) ^ byte)];
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answer_of_the_check_string() {
        assert_eq!(checksum_without(b"123456789", usize::MAX), 0xe306_9283);
    }

    #[test]
    fn own_checksum_field_does_not_count() {
        assert_eq!(
            checksum_without(&[1, 2, 3, 4, 5], 1),
            checksum_without(&[1, 9, 9, 9, 9], 1)
        );
    }
}
