//! qcow2's header. Source: QEMU's "The Qcow2 image file format" (docs/interop/qcow2). Numbers are big-endian.

use super::{be_u32, be_u64};

/// Bytes of the header that are looked at.
pub(super) const HEADER_LEN: usize = 104;
/// The first bytes of every qcow2 image.
pub(super) const MAGIC: &[u8; 4] = b"QFI\xfb";

const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_EXTERNAL_DATA: u64 = 1 << 2;

/// The virtual size in bytes, or why the image may not be attached.
///
/// Whatever names another file of the host is refused: the image may have come from anywhere.
pub(super) fn virtual_size(header: &[u8]) -> Result<u64, String> {
    let cut = || "the qcow2 header is cut short".to_owned();
    if !header.starts_with(MAGIC) {
        return Err("it has no qcow2 header".to_owned());
    }
    let version = be_u32(header, 4).ok_or_else(cut)?;
    if !(2..=3).contains(&version) {
        return Err(format!("qcow2 version {version} is unknown"));
    }
    if be_u64(header, 8).ok_or_else(cut)? != 0 {
        return Err("the qcow2 image has a backing file: its data lies in another file".to_owned());
    }
    let cluster_bits = be_u32(header, 20).ok_or_else(cut)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(format!(
            "the qcow2 header states clusters of 2^{cluster_bits} bytes"
        ));
    }
    let size = be_u64(header, 24).ok_or_else(cut)?;
    if size == 0 || size > i64::MAX as u64 {
        return Err(format!("the qcow2 header states a size of {size} bytes"));
    }
    if be_u32(header, 32).ok_or_else(cut)? != 0 {
        return Err("the qcow2 image is encrypted".to_owned());
    }
    if version == 3 {
        let incompatible = be_u64(header, 72).ok_or_else(cut)?;
        if incompatible & INCOMPATIBLE_EXTERNAL_DATA != 0 {
            return Err("the qcow2 image keeps its data in another file".to_owned());
        }
        if incompatible & INCOMPATIBLE_CORRUPT != 0 {
            return Err("the qcow2 image is marked as corrupt".to_owned());
        }
    }
    Ok(size)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A version 3 header without features.
    pub(in super::super) fn sample_header(size: u64) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(MAGIC);
        header[4..8].copy_from_slice(&3u32.to_be_bytes());
        header[20..24].copy_from_slice(&16u32.to_be_bytes());
        header[24..32].copy_from_slice(&size.to_be_bytes());
        header
    }

    #[test]
    fn plain_header_gives_its_size() {
        assert_eq!(virtual_size(&sample_header(1 << 30)), Ok(1 << 30));
    }

    #[test]
    fn images_that_name_other_files_are_refused() {
        let mut backed = sample_header(1 << 30);
        backed[15] = 200;
        assert!(virtual_size(&backed).unwrap_err().contains("backing file"));
        let mut external = sample_header(1 << 30);
        external[79] = 4;
        assert!(virtual_size(&external).unwrap_err().contains("another file"));
    }

    #[test]
    fn every_short_header_is_an_error() {
        let header = sample_header(1 << 30);
        for length in 0..80 {
            assert!(virtual_size(&header[..length]).is_err(), "{length} bytes");
        }
    }
}
