//! What a hostile archive may make us hold or do.

/// Bounds; the defaults are above what real images have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries of one archive.
    pub entries: u64,
    /// Bytes of a path or a link's target (Linux: PATH_MAX is 4096).
    pub path_bytes: usize,
    /// Bytes of all extended headers of one entry.
    pub extended_bytes: usize,
    /// Segments of one sparse file.
    pub segments: usize,
    /// Bytes of the whole archive, decompressed.
    pub archive_bytes: u64,
    /// Size of one file, holes included (ext4 with blocks of 4 KiB: 16 TiB).
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000_000,
            path_bytes: 4096,
            extended_bytes: 1 << 20,
            segments: 65_536,
            archive_bytes: 128 << 30,
            file_bytes: 1 << 44,
        }
    }
}
