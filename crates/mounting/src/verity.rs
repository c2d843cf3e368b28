//! The hash tree behind a layer's file system, in the layout of veritysetup(8): directly after the file system one
//! block with a superblock (version 1), then the tree's blocks, the topmost first
//! (<https://docs.kernel.org/admin-guide/device-mapper/verity.html>, cryptsetup's `verity` superblock).
//!
//! The superblock does not hold the root digest: it is the digest of the topmost block. What protects a layer is that
//! digest, known from elsewhere ([`Digest`]); the tree alone finds damage.

use std::{
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    str::FromStr,
};

use sha2::{Digest as _, Sha256};

use crate::{
    error::{During, MountError, Result},
    filesystem::Filesystem,
};

/// Bytes of a block, of data and of hashes. Others are not made for layers.
pub const BLOCK_BYTES: u64 = 4096;
const SIGNATURE: &[u8; 8] = b"verity\0\0";
const VERSION: u32 = 1;
/// The salt comes before the data; 0 is Chrome OS's old order.
const HASH_TYPE: u32 = 1;
const ALGORITHM: &[u8] = b"sha256";
const SALT_AT: usize = 88;
const MAX_SALT: usize = 256;
/// Digests in a block of hashes.
const FAN_OUT: u64 = BLOCK_BYTES / 32;

/// A SHA-256 digest: the root of a tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = MountError;

    /// 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let refused =
            || MountError::Invalid(format!("{text:?} is no SHA-256 digest of 64 hexadecimal digits"));
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let mut digest = [0; 32];
        for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
            let digits = text.get(at..at + 2).ok_or_else(refused)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| refused())?;
        }
        Ok(Self(digest))
    }
}

/// A hash tree that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Blocks of the file system, all of which the tree covers.
    pub data_blocks: u64,
    /// The digest everything hangs on.
    pub root: Digest,
    salt: Vec<u8>,
}

impl Tree {
    /// Looks for a tree behind the file system `found` on `device`. `None` where there is none.
    ///
    /// # Errors
    /// [`MountError::Verity`] where there is a superblock, but not of a tree that can be used: what was meant to be
    /// checked must not be mounted unchecked. The system's.
    pub fn find(device: &Path, found: &Filesystem) -> Result<Option<Self>> {
        let Some(data_bytes) = found
            .size_bytes
            .filter(|size| *size > 0 && size.is_multiple_of(BLOCK_BYTES))
        else {
            return Ok(None);
        };
        let action = || format!("looking for a hash tree on {}", device.display());
        let mut file = File::open(device).during(action)?;
        let device_bytes = file.seek(SeekFrom::End(0)).during(action)?;
        let mut block = [0; BLOCK_BYTES as usize];
        if data_bytes
            .checked_add(BLOCK_BYTES)
            .is_none_or(|end| end > device_bytes)
        {
            return Ok(None);
        }
        let mut read_at = |at: u64, block: &mut [u8]| {
            file.seek(SeekFrom::Start(at))
                .and_then(|_| file.read_exact(block))
                .during(action)
        };
        read_at(data_bytes, &mut block)?;
        if !block.starts_with(SIGNATURE) {
            return Ok(None);
        }
        let refused = |problem: String| MountError::Verity {
            device: device.display().to_string(),
            problem,
        };
        let data_blocks = data_bytes / BLOCK_BYTES;
        let salt = salt(&block, data_blocks).map_err(refused)?;
        let end_bytes = (data_blocks + 1 + tree_blocks(data_blocks)).checked_mul(BLOCK_BYTES);
        if end_bytes.is_none_or(|end| end > device_bytes) {
            return Err(refused(format!(
                "the hash tree of {data_blocks} blocks does not fit the device of {device_bytes} bytes"
            )));
        }
        // The tree of a single block is that block itself.
        let top = if data_blocks == 1 {
            0
        } else {
            data_bytes + BLOCK_BYTES
        };
        read_at(top, &mut block)?;
        let root = Sha256::new().chain_update(&salt).chain_update(block).finalize();
        Ok(Some(Self {
            data_blocks,
            root: Digest(root.into()),
            salt,
        }))
    }

    /// What the kernel's target is given (`version dev hash_dev data_block hash_block blocks start algorithm root
    /// salt`), for a device `major:minor` that holds both.
    pub(crate) fn table(&self, device: &str) -> String {
        let salt = if self.salt.is_empty() {
            "-".to_owned()
        } else {
            self.salt.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        format!(
            "{HASH_TYPE} {device} {device} {BLOCK_BYTES} {BLOCK_BYTES} {} {} sha256 {} {salt}",
            self.data_blocks,
            self.data_blocks + 1,
            self.root
        )
    }
}

/// Checks every field of a superblock and gives the salt, or says what is wrong.
fn salt(block: &[u8; BLOCK_BYTES as usize], data_blocks: u64) -> Result<Vec<u8>, String> {
    let number = |at: usize, bytes: usize| {
        let part = block.get(at..at + bytes).unwrap_or_default();
        part.iter()
            .rev()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let wanted = [
        ("version", number(8, 4), VERSION.into()),
        ("hash type", number(12, 4), HASH_TYPE.into()),
        ("data block size", number(64, 4), BLOCK_BYTES),
        ("hash block size", number(68, 4), BLOCK_BYTES),
        ("number of data blocks", number(72, 8), data_blocks),
    ];
    for (what, is, must) in wanted {
        if is != must {
            return Err(format!("its superblock has {what} {is}, not {must}"));
        }
    }
    let algorithm = block.get(32..64).unwrap_or_default();
    if algorithm
        .strip_prefix(ALGORITHM)
        .is_none_or(|rest| rest.iter().any(|byte| *byte != 0))
    {
        let shown = String::from_utf8_lossy(algorithm);
        return Err(format!(
            "its superblock has hash algorithm {:?}, not sha256",
            shown.trim_end_matches('\0')
        ));
    }
    let length = number(80, 2) as usize;
    if length > MAX_SALT {
        return Err(format!(
            "its superblock has a salt of {length} bytes, more than {MAX_SALT}"
        ));
    }
    Ok(block.get(SALT_AT..SALT_AT + length).unwrap_or_default().to_vec())
}

/// Blocks of the tree over so many blocks, all levels.
fn tree_blocks(data_blocks: u64) -> u64 {
    let mut level = data_blocks;
    let mut sum = 0;
    while level > 1 {
        level = level.div_ceil(FAN_OUT);
        sum += level;
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    const TWO_BLOCKS: Filesystem = Filesystem {
        name: "erofs",
        size_bytes: Some(2 * BLOCK_BYTES),
    };

    /// Two blocks of data, a superblock and a tree of one block, changed by `change`.
    fn image(dir: &tempfile::TempDir, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let mut bytes = vec![0; 4 * BLOCK_BYTES as usize];
        let mut put = |at: usize, value: &[u8]| {
            bytes[2 * BLOCK_BYTES as usize + at..][..value.len()].copy_from_slice(value)
        };
        put(0, SIGNATURE);
        put(8, &[1, 0, 0, 0, 1]);
        put(32, ALGORITHM);
        put(64, &4096_u32.to_le_bytes());
        put(68, &4096_u32.to_le_bytes());
        put(72, &[2]);
        put(80, &[2]);
        put(SALT_AT, &[0xAB, 0xCD]);
        change(&mut bytes);
        let path = dir.path().join("image");
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn a_tree_is_found_and_its_table_is_the_kernels() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::find(&image(&dir, |_| ()), &TWO_BLOCKS).unwrap().unwrap();
        let root = Sha256::new()
            .chain_update([0xAB, 0xCD])
            .chain_update([0; 4096])
            .finalize();
        assert_eq!(tree.root, Digest(root.into()));
        assert_eq!(
            tree.table("8:16"),
            format!("1 8:16 8:16 4096 4096 2 3 sha256 {} abcd", tree.root)
        );
    }

    #[test]
    fn what_has_no_superblock_has_no_tree() {
        let dir = tempfile::tempdir().unwrap();
        let none = |change: fn(&mut Vec<u8>), size_bytes| {
            let found = Filesystem {
                name: "ext4",
                size_bytes,
            };
            Tree::find(&image(&dir, change), &found).unwrap().is_none()
        };
        assert!(none(|bytes| bytes[8192] ^= 1, Some(8192)));
        assert!(none(|bytes| bytes.truncate(8192), Some(8192)));
        assert!(none(|bytes| bytes.truncate(8192 + 512), Some(8192)));
        for size in [None, Some(0), Some(8191), Some(u64::MAX - 4095), Some(4096)] {
            assert!(none(|_| (), size), "{size:?}");
        }
    }

    #[test]
    fn a_superblock_that_cannot_be_used_is_refused_by_its_field() {
        let dir = tempfile::tempdir().unwrap();
        type Change = fn(&mut Vec<u8>);
        let changes: [(&str, Change); 9] = [
            ("version 2", |bytes| bytes[8192 + 8] = 2),
            ("hash type 0", |bytes| bytes[8192 + 12] = 0),
            ("\"sha512\"", |bytes| {
                bytes[8192 + 32..8192 + 38].copy_from_slice(b"sha512")
            }),
            ("\"sha2567\"", |bytes| bytes[8192 + 38] = b'7'),
            ("data block size 512", |bytes| bytes[8192 + 65] = 2),
            ("hash block size 4097", |bytes| bytes[8192 + 68] = 1),
            ("data blocks 3", |bytes| bytes[8192 + 72] = 3),
            ("salt of 65282 bytes", |bytes| bytes[8192 + 81] = 0xFF),
            ("does not fit", |bytes| bytes.truncate(3 * 4096)),
        ];
        for (word, change) in changes {
            let error = Tree::find(&image(&dir, change), &TWO_BLOCKS)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(word) && error.contains("dm-verity of"),
                "{word}: {error}"
            );
        }
    }

    #[test]
    fn digests_are_64_digits() {
        let text = "af13ddc5df974471ac0bbc7462af7238ba3bb5d55f6bf673481596e19995dfe8";
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        for bad in [
            "",
            &text[1..],
            &text.replace('a', "x"),
            &format!("+{}", &text[1..]),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn trees_have_a_block_for_each_128_of_the_level_below() {
        assert_eq!(
            [1, 2, 128, 129, 16384, 16385].map(tree_blocks),
            [0, 1, 1, 3, 129, 132]
        );
        assert!(tree_blocks(u64::MAX / BLOCK_BYTES) < u64::MAX / BLOCK_BYTES);
    }
}
