//! What the targets share: how inputs get behind what a random change cannot pass.

/// Bytes of a tar header.
const BLOCK: usize = 512;

/// The archive with right checksums in whatever looks like a header. A change anywhere in a header would otherwise say
/// nothing but that checksums are looked at.
#[must_use]
pub fn with_checksums(archive: &[u8]) -> Vec<u8> {
    let mut archive = archive.to_vec();
    for block in archive.as_chunks_mut::<BLOCK>().0 {
        // Version 7 has no mark; its headers have a checksum of digits all the same.
        if block[257..262] == *b"ustar" || block[148..154].iter().all(u8::is_ascii_digit) {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
            block[154] = 0;
        }
    }
    archive
}
