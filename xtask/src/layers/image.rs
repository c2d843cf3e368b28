//! Disk images: ext4 made from a directory without mounting, in the formats a host keeps them in.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use anyhow::{Context, Result, ensure};

use super::userland::like_root;
use crate::tool::Tool;

const BLOCK: u64 = 4096;
const MIB: u64 = 1024 * 1024;
const VHD_FOOTER: u64 = 512;

/// An ext4 file system that holds a directory, just large enough, without a journal: it is only ever read.
pub(super) fn read_only_ext4(content: &Path, image: &Path, state: &Path) -> Result<()> {
    let size = Size::of(content)?;
    like_root("mke2fs", state)
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            "4096",
            "-m",
            "0",
            "-O",
            "^has_journal,^resize_inode",
        ])
        .args([
            "-N",
            &(size.files + 64).to_string(),
            "-E",
            "root_owner=0:0,lazy_itable_init=0",
            "-d",
        ])
        .arg(content)
        .arg(image)
        .arg(format!("{}k", size.filesystem_bytes() / 1024))
        .run()
}

/// An empty, writable ext4 file system of some size in a sparse file.
pub(crate) fn empty_ext4(image: &Path, size_mib: u64) -> Result<()> {
    let _ = fs::remove_file(image); // mke2fs keeps what a file held before
    Tool::new("mke2fs")
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-m",
            "0",
            "-E",
            "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1",
        ])
        .arg(image)
        .arg(format!("{size_mib}M"))
        .run()
}

/// Converts a raw image into another format.
pub(crate) fn convert(raw: &Path, format: &str, options: Option<&str>, image: &Path) -> Result<()> {
    let mut tool = Tool::new("qemu-img").args(["convert", "-f", "raw", "-O", format]);
    if let Some(options) = options {
        tool = tool.args(["-o", options]);
    }
    tool.arg(raw).arg(image).run()
}

/// A fixed VHD around a raw image: its bytes unchanged, then the footer. A guest that is given the file as it is (as
/// persistent memory, say) finds the file system at its start.
pub(super) fn fixed_vhd(raw: &Path, vhd: &Path) -> Result<()> {
    convert(raw, "vpc", Some("subformat=fixed,force_size=on"), vhd)?;
    let raw_size = fs::metadata(raw)?.len();
    let vhd_size = fs::metadata(vhd)?.len();
    ensure!(
        vhd_size == raw_size + VHD_FOOTER,
        "{} has {vhd_size} bytes where {raw_size} and a footer of {VHD_FOOTER} were expected",
        vhd.display()
    );
    let mut cookie = [0; 8];
    let mut file = File::open(vhd)?;
    file.seek(SeekFrom::Start(raw_size))?;
    file.read_exact(&mut cookie)?;
    ensure!(
        &cookie == b"conectix",
        "{} has no VHD footer at its end",
        vhd.display()
    );
    Ok(())
}

/// What a directory will take as an ext4 file system.
#[derive(Debug, Default, PartialEq, Eq)]
struct Size {
    files: u64,
    blocks: u64,
}

impl Size {
    fn of(dir: &Path) -> Result<Self> {
        let mut size = Size::default();
        let entries = fs::read_dir(dir).with_context(|| format!("could not read {}", dir.display()))?;
        for entry in entries {
            let entry = entry?;
            let metadata = entry.metadata()?;
            size.files += 1;
            size.blocks += metadata.len().div_ceil(BLOCK);
            if metadata.is_dir() {
                let below = Size::of(&entry.path())?;
                size.files += below.files;
                size.blocks += below.blocks;
            }
        }
        Ok(size)
    }

    /// Contents, inodes of 256 bytes, and a tenth for extents and bitmaps; whole MiB.
    fn filesystem_bytes(&self) -> u64 {
        let content = self.blocks * BLOCK + (self.files + 64) * 256;
        (content + content / 10 + 2 * MIB).div_ceil(MIB) * MIB
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_room_for_its_content() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/large"), vec![0; 3 * MIB as usize + 1]).unwrap();
        fs::write(dir.path().join("empty"), b"").unwrap();
        let size = Size::of(dir.path()).unwrap();
        assert_eq!(size.files, 3);
        assert!(size.blocks > 3 * MIB / BLOCK);
        let bytes = size.filesystem_bytes();
        assert!(bytes > 3 * MIB + 2 * MIB && bytes.is_multiple_of(MIB), "{bytes}");
    }
}
