//! The mount table as the kernel tells it (`proc_pid_mountinfo(5)`).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::error::{During, Result};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Unique while it exists.
    pub id: u64,
    /// The mount it is mounted on.
    pub parent: u64,
    /// `major:minor` of the file system.
    pub device: String,
    /// Where it is mounted.
    pub path: PathBuf,
    /// File system type.
    pub fs_type: String,
    /// The source as it was given.
    pub source: String,
    /// Whether this mount or its file system is read-only.
    pub read_only: bool,
}

impl Mount {
    /// Whether two mounts show the same file system. What is not known of one fits whatever the other has.
    #[must_use]
    pub fn is_of_same_source(&self, other: &Self) -> bool {
        let fits = |own: &str, other: &str| own.is_empty() || other.is_empty() || own == other;
        self.device == other.device
            && fits(&self.fs_type, &other.fs_type)
            && fits(&self.source, &other.source)
    }
}

/// All mounts of this process's namespace, in mount order.
///
/// # Errors
/// The system's.
pub fn read() -> Result<Vec<Mount>> {
    let path = "/proc/self/mountinfo";
    Ok(parse(&fs::read(path).during(|| format!("reading {path}"))?))
}

/// Whether something is mounted on exactly `path`.
///
/// # Errors
/// The system's.
pub fn is_mounted(path: &Path) -> Result<bool> {
    Ok(read()?.iter().any(|mount| mount.path == path))
}

/// The mounts of a table's text.
#[must_use]
pub fn parse(table: &[u8]) -> Vec<Mount> {
    String::from_utf8_lossy(table)
        .lines()
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let id = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    let device = fields.next()?.to_owned();
    let path = unescape(fields.nth(1)?);
    let options = fields.next()?;
    let mut rest = after.split(' ');
    let fs_type = rest.next()?.to_owned();
    let source = unescape(rest.next()?);
    let super_options = rest.next().unwrap_or_default();
    let has_ro = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mount {
        id,
        parent,
        device,
        path: PathBuf::from(path),
        fs_type,
        source,
        read_only: has_ro(options) || has_ro(super_options),
    })
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'\\')
            .then(|| text.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A snapshot of the mounts that were there when it was taken.
#[derive(Debug, Default)]
pub struct Baseline(std::collections::HashSet<u64>);

impl Baseline {
    /// Takes the snapshot.
    ///
    /// # Errors
    /// The system's.
    pub fn take() -> Result<Self> {
        Ok(Self(read()?.into_iter().map(|mount| mount.id).collect()))
    }

    /// What has been mounted since.
    ///
    /// # Errors
    /// The system's.
    pub fn since(&self) -> Result<Vec<Mount>> {
        let mut mounts = read()?;
        mounts.retain(|mount| !self.0.contains(&mount.id));
        Ok(mounts)
    }
}

/// The mount whose file system is on block device `device` (`major:minor`), if any.
///
/// # Errors
/// The system's.
pub fn mount_of_device(device: &str) -> io::Result<Option<Mount>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(parse(&table).into_iter().find(|mount| mount.device == device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_optional_fields_and_escapes_are_read() {
        let mounts = parse(
            b"36 35 8:16 / /run/gcs/c/1/m\\040x rw,noatime shared:1 master:2 - ext4 /dev/sdb ro,noload\n\
              40 35 0:31 /sub /a rw - overlay overlay rw,lowerdir=/l/0\n\
              garbage\n",
        );
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].path, Path::new("/run/gcs/c/1/m x"));
        assert_eq!(mounts[0].device, "8:16");
        assert_eq!(mounts[0].source, "/dev/sdb");
        assert!(mounts[0].read_only);
        assert_eq!(mounts[1].fs_type, "overlay");
        assert!(!mounts[1].read_only);
    }

    #[test]
    fn a_stray_backslash_is_kept() {
        assert_eq!(unescape("a\\x\\134b\\0"), "a\\x\\b\\0");
    }

    #[test]
    fn this_process_has_a_proc_mount() {
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(Baseline::take().unwrap().since().unwrap().is_empty());
    }
}
