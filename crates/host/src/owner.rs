//! Whose devices these are: everything one owner attaches is marked with its state directory, so that another
//! process that knows the directory finds it in the system itself.

use std::{
    io,
    path::{Path, PathBuf},
};

use cofferdam_ledger::address::ScsiAddress;
use cofferdam_mounting::mount_point;

use crate::{
    error::{During, Result},
    ioctl::NAME_BYTES,
};

/// Begins the name of every loop device of ours.
const PREFIX: &str = "cofferdam:";

/// One owner of devices: a state directory that belongs to it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    state_dir: PathBuf,
}

impl Owner {
    /// The owner of a state directory. Whichever path leads to the directory, it is the same owner.
    ///
    /// # Errors
    /// The system's, where the directory is not there.
    pub fn of(state_dir: &Path) -> Result<Self> {
        let state_dir = state_dir
            .canonicalize()
            .during(|| format!("looking for the state directory {}", state_dir.display()))?;
        Ok(Self { state_dir })
    }

    /// Its state directory.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Below this directory shared layers are mounted (`Ledger::with_layers_below`).
    ///
    /// # Errors
    /// The path is not UTF-8, so that a request could not name it.
    pub fn layers_below(&self) -> Result<String> {
        let text = self.state_dir.to_str().map(str::to_owned);
        text.ok_or(io::Error::from(io::ErrorKind::InvalidFilename))
            .during(|| format!("naming {}", self.state_dir.display()))
    }

    /// Where the exports of images are that the kernel cannot read itself.
    pub(crate) fn exports(&self) -> PathBuf {
        self.state_dir.join("disks")
    }

    /// The file as which an image is exported.
    pub(crate) fn export(&self, address: ScsiAddress) -> PathBuf {
        self.exports()
            .join(format!("{}-{}", address.controller, address.lun))
    }

    /// Where short links to layers are while an overlay is made.
    pub(crate) fn links(&self) -> PathBuf {
        self.state_dir.join("l")
    }

    /// Removes the directories that attaching and mounting make in the state directory. What else is in it is its
    /// owner's.
    ///
    /// # Errors
    /// Something is mounted there still; the system's.
    pub fn tidy(&self) -> Result<()> {
        for directory in [self.exports(), self.links(), self.state_dir.join("mounts")] {
            mount_point::remove_tree(&directory)?;
        }
        Ok(())
    }

    /// The OCI runtime's bundle.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.state_dir.join("bundle")
    }

    /// The OCI runtime's own state.
    pub(crate) fn runtime_state(&self) -> PathBuf {
        self.state_dir.join("runtime")
    }

    /// Which OCI runtime it is.
    pub(crate) fn runtime_note(&self) -> PathBuf {
        self.state_dir.join("runtime.json")
    }

    /// The name of a loop device: who attached it, and as what. A path would not fit.
    pub(crate) fn mark(&self, address: ScsiAddress) -> [u8; NAME_BYTES] {
        let text = format!("{}{}:{}", self.prefix(), address.controller, address.lun);
        let mut name = [0; NAME_BYTES];
        // Prefix, 16 digits and two numbers below 256 are 35 bytes at most.
        name[..text.len()].copy_from_slice(text.as_bytes());
        name
    }

    /// The address in the name of a loop device, if this owner attached it.
    pub(crate) fn address(&self, name: &[u8]) -> Option<ScsiAddress> {
        let end = name.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(&name[..end]).ok()?;
        let (controller, lun) = text.strip_prefix(&self.prefix())?.split_once(':')?;
        Some(ScsiAddress {
            controller: controller.parse().ok()?,
            lun: lun.parse().ok()?,
        })
    }

    /// The name of the device-mapper device that checks the disk at an address (dm-verity).
    pub(crate) fn checked(&self, address: ScsiAddress) -> String {
        format!("{}{}-{}", self.checked_prefix(), address.controller, address.lun)
    }

    /// Begins the names of all of them.
    pub(crate) fn checked_prefix(&self) -> String {
        format!("cofferdam-{}-", self.tag())
    }

    fn prefix(&self) -> String {
        format!("{PREFIX}{}:", self.tag())
    }

    /// Tells it from every other owner on this host, whose containers may have the same names.
    pub(crate) fn tag(&self) -> String {
        let path = self.state_dir.as_os_str().as_encoded_bytes();
        format!("{:016x}", fnv1a(path))
    }
}

/// FNV-1a, 64 bits: the same in every process and every release, which the standard library's hashes are not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: ScsiAddress = ScsiAddress {
        controller: 3,
        lun: 63,
    };

    fn owner(path: &str) -> Owner {
        Owner {
            state_dir: path.into(),
        }
    }

    #[test]
    fn a_mark_leads_back_to_its_owner_and_to_nobody_else() {
        let (web, db) = (owner("/run/cofferdam/web"), owner("/run/cofferdam/db"));
        let mark = web.mark(ADDRESS);
        assert_eq!(web.address(&mark), Some(ADDRESS));
        assert_eq!(db.address(&mark), None);
        assert_eq!(web.address(b"/some/file\0"), None);
        assert_eq!(web.address(&[b'x'; NAME_BYTES]), None);
    }

    #[test]
    fn checked_disks_have_names_of_their_owner_that_the_device_mapper_takes() {
        let (web, db) = (owner("/run/cofferdam/web"), owner("/run/cofferdam/db"));
        let name = web.checked(ADDRESS);
        assert!(
            name.starts_with(&web.checked_prefix()) && name.ends_with("-3-63"),
            "{name}"
        );
        assert!(!name.starts_with(&db.checked_prefix()) && name.len() < 128 && !name.contains('/'));
    }

    #[test]
    fn marks_stay_the_same_across_releases() {
        assert_eq!(fnv1a(b"foobar"), 0x85944171f73967e8);
    }

    #[test]
    fn a_state_directory_that_is_not_there_has_no_owner() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Owner::of(&dir.path().join("none")).is_err());
    }
}
