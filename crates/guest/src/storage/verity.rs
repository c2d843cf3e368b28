//! Names of the devices that check layers' blocks (dm-verity), and what the host holds a layer to.

use std::path::Path;

use cofferdam_mounting::{
    layer::{Found, Source},
    mapper, mountinfo,
    verity::Digest,
};
use cofferdam_protocol::settings::VerityInfo;

use crate::{error::Result, modules};

/// Begins the names of all of them.
const PREFIX: &str = "verity-";
const PMEM: &str = "pmem";

/// The name for a disk: controller, LUN, partition (0: the whole disk).
pub(crate) fn disk_name((controller, lun, partition): (u8, u8, u64)) -> String {
    match partition {
        0 => format!("{PREFIX}{controller}-{lun}"),
        number => format!("{PREFIX}{controller}-{lun}-p{number}"),
    }
}

/// The name for persistent memory.
pub(crate) fn pmem_name(number: u32) -> String {
    format!("{PREFIX}{PMEM}{number}")
}

/// The root digest a layer must have, if the host names one (GCS bridge protocol §7.1, §7.3).
pub(crate) fn pin(info: Option<&VerityInfo>) -> Result<Option<Digest>> {
    let digest = info.map(|info| info.root_digest.as_str());
    Ok(digest
        .filter(|digest| !digest.is_empty())
        .map(str::parse)
        .transpose()?)
}

/// Opens a device for mounting ([`Source::open`]), once the kernel has what that takes.
pub(crate) fn open(device: &Path, name: &str, read_only: bool, pin: Option<&Digest>) -> Result<Source> {
    let found = Found::look(device)?;
    modules::provide(found.filesystem().name);
    if found.has_tree() {
        modules::provide("dm_verity");
    }
    Ok(Source::open(found, name, read_only, pin)?)
}

/// A device that checks blocks, and that nothing is mounted from: a removal that failed half way left it.
#[derive(Debug)]
pub(crate) struct Leftover {
    /// Its name without the prefix: of a disk, the name of its mount point too.
    pub(crate) short_name: String,
    /// Its node.
    pub(crate) node: String,
}

/// Every one of them, as the system tells.
pub(crate) fn leftovers() -> Result<Vec<Leftover>> {
    let mapped = mapper::starting_with(PREFIX)?;
    if mapped.is_empty() {
        return Ok(Vec::new());
    }
    let mounts = mountinfo::read()?;
    let unmounted = mapped
        .into_iter()
        .filter(|mapped| !mounts.iter().any(|mount| mount.device == mapped.number));
    Ok(unmounted
        .map(|mapped| Leftover {
            short_name: mapped.name.trim_start_matches(PREFIX).to_owned(),
            node: mapped.node.display().to_string(),
        })
        .collect())
}

/// Removes those of a disk that nothing is mounted from: the disk is to go.
pub(crate) fn clear_disk(controller: u8, lun: u8) -> Result<()> {
    let whole = disk_name((controller, lun, 0));
    for mapped in mapper::starting_with(&whole)? {
        if mapped.name == whole || mapped.name.starts_with(&format!("{whole}-p")) {
            mapper::remove(&mapped.name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_a_digest_or_nothing() {
        let info = |digest: &str| VerityInfo {
            root_digest: digest.into(),
            ..Default::default()
        };
        assert_eq!(pin(None).unwrap(), None);
        assert_eq!(pin(Some(&info(""))).unwrap(), None);
        assert!(pin(Some(&info(&"ab".repeat(32)))).unwrap().is_some());
        assert_eq!(pin(Some(&info("ab"))).unwrap_err().code(), 0x8007_0057);
    }

    #[test]
    fn each_device_has_a_name_of_its_own() {
        let names = [
            disk_name((0, 3, 0)),
            disk_name((0, 3, 1)),
            disk_name((0, 31, 0)),
            pmem_name(3),
        ];
        assert_eq!(
            names,
            ["verity-0-3", "verity-0-3-p1", "verity-0-31", "verity-pmem3"]
        );
    }
}
