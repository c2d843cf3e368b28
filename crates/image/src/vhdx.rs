//! VHDX: file identifier, headers, region table, metadata. Source: MS-VHDX §2.2 to §2.6. Little-endian.

use super::{array, crc32c::checksum_without, le_u16, le_u32, le_u64};

/// The first bytes of the file (§2.2.1).
pub(super) const SIGNATURE: &[u8; 8] = b"vhdxfile";
/// Where the two headers lie, and how much of each counts (§2.2.2).
pub(super) const HEADER_OFFSETS: [u64; 2] = [64 << 10, 128 << 10];
/// Bytes of a header.
pub(super) const HEADER_LEN: usize = 4096;
/// Where the two region tables lie (§2.2.3).
pub(super) const REGION_TABLE_OFFSETS: [u64; 2] = [192 << 10, 256 << 10];
/// Bytes of a region table.
pub(super) const REGION_TABLE_LEN: usize = 64 << 10;
/// Bytes of the metadata table (§2.6.1).
pub(super) const METADATA_TABLE_LEN: usize = 64 << 10;

/// GUID 8B7CA206-4790-4B9A-B8FE-575F050F886E: the metadata region.
const METADATA_REGION: [u8; 16] = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
/// GUID CAA16737-FA36-4D43-B3B6-33F0AA44E76B: file parameters.
const FILE_PARAMETERS: [u8; 16] = *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
/// GUID 2FA54224-CD1B-4876-B211-5DBED83BF4B8: virtual disk size.
const VIRTUAL_DISK_SIZE: [u8; 16] = *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
/// §2.2.3 and §2.6.1: neither table may hold more entries.
const MAX_ENTRIES: usize = 2047;
/// §2.6.2.2: the largest disk.
const MAX_SIZE: u64 = 64 << 40;

/// Whether these bytes are a header whose checksum holds.
pub(super) fn header_is_valid(bytes: &[u8]) -> bool {
    bytes.len() == HEADER_LEN
        && bytes.starts_with(b"head")
        && le_u32(bytes, 4) == Some(checksum_without(bytes, 4))
        && le_u16(bytes, 66) == Some(1)
}

/// Where the metadata region lies: offset and length in bytes. `None` if this table is damaged.
pub(super) fn metadata_region(table: &[u8]) -> Option<(u64, u32)> {
    if table.len() != REGION_TABLE_LEN
        || !table.starts_with(b"regi")
        || le_u32(table, 4) != Some(checksum_without(table, 4))
    {
        return None;
    }
    let entries = (le_u32(table, 8)? as usize).min(MAX_ENTRIES);
    (0..entries).map(|entry| 16 + 32 * entry).find_map(|at| {
        (array(table, at)? == METADATA_REGION).then_some(())?;
        Some((le_u64(table, at + 16)?, le_u32(table, at + 24)?))
    })
}

/// Where two metadata items lie, in bytes from the region's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Items {
    pub(super) file_parameters: u32,
    pub(super) virtual_size: u32,
}

/// Finds the items in the metadata table, or says what is missing.
pub(super) fn metadata_items(table: &[u8]) -> Result<Items, String> {
    if !table.starts_with(b"metadata") {
        return Err("the VHDX metadata table is missing".to_owned());
    }
    let entries = usize::from(le_u16(table, 10).unwrap_or_default()).min(MAX_ENTRIES);
    let find = |wanted: [u8; 16]| {
        (0..entries).map(|entry| 32 + 32 * entry).find_map(|at| {
            (array(table, at)? == wanted).then_some(())?;
            le_u32(table, at + 16)
        })
    };
    Ok(Items {
        file_parameters: find(FILE_PARAMETERS).ok_or("the VHDX has no file parameters")?,
        virtual_size: find(VIRTUAL_DISK_SIZE).ok_or("the VHDX does not state its size")?,
    })
}

/// Checks the two items' values and gives the virtual size in bytes.
pub(super) fn virtual_size(file_parameters: [u8; 8], size: [u8; 8]) -> Result<u64, String> {
    // §2.6.2.1: bit 1 of the flags is HasParent.
    if file_parameters[4] & 2 != 0 {
        return Err("it is a differencing VHDX: its data lies in another file".to_owned());
    }
    let size = u64::from_le_bytes(size);
    if size == 0 || !size.is_multiple_of(512) || size > MAX_SIZE {
        return Err(format!("the VHDX states a size of {size} bytes"));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differencing_disk_is_refused() {
        let parameters = [0, 0, 0, 2, 2, 0, 0, 0];
        assert!(
            virtual_size(parameters, (1u64 << 30).to_le_bytes())
                .unwrap_err()
                .contains("differencing")
        );
    }

    #[test]
    fn absurd_sizes_are_refused() {
        for size in [0, 511, u64::MAX] {
            assert!(virtual_size([0; 8], size.to_le_bytes()).is_err(), "{size}");
        }
    }

    #[test]
    fn region_table_with_a_wrong_checksum_is_ignored() {
        let mut table = vec![0; REGION_TABLE_LEN];
        table[..4].copy_from_slice(b"regi");
        assert_eq!(metadata_region(&table), None);
    }

    #[test]
    fn metadata_table_that_claims_more_entries_than_fit_is_an_error() {
        let mut table = vec![0; 64];
        table[..8].copy_from_slice(b"metadata");
        table[10..12].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(metadata_items(&table).unwrap_err().contains("file parameters"));
    }
}
