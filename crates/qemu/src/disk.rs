//! The block graph of one disk: what `blockdev-add` and `device_add` are told. No I/O.
//!
//! A disk is a `scsi-hd` device over a format node over a protocol node; their names hold its address, so that
//! QEMU itself can be asked what is plugged in.

use std::path::Path;

use cofferdam_image::{ImageFacts, ImageFormat};
use cofferdam_ledger::address::ScsiAddress;
use serde_json::{Value, json};

use crate::command_line::controller_id;

const DEVICE_PREFIX: &str = "scsi-";
const FORMAT_NODE_PREFIX: &str = "disk-";
const FILE_NODE_PREFIX: &str = "file-";

/// The name of the `scsi-hd` device at an address.
pub(crate) fn device_id(address: ScsiAddress) -> String {
    format!("{DEVICE_PREFIX}{}-{}", address.controller, address.lun)
}

/// The name of the format node at an address: the one that `blockdev-del` takes.
pub(crate) fn format_node(address: ScsiAddress) -> String {
    format!("{FORMAT_NODE_PREFIX}{}-{}", address.controller, address.lun)
}

fn file_node(address: ScsiAddress) -> String {
    format!("{FILE_NODE_PREFIX}{}-{}", address.controller, address.lun)
}

/// The address in a device's name.
pub(crate) fn address_of_device(id: &str) -> Option<ScsiAddress> {
    address(id.strip_prefix(DEVICE_PREFIX)?)
}

/// The address in the name of either of a disk's nodes.
pub(crate) fn address_of_node(name: &str) -> Option<ScsiAddress> {
    address(
        name.strip_prefix(FORMAT_NODE_PREFIX)
            .or_else(|| name.strip_prefix(FILE_NODE_PREFIX))?,
    )
}

fn address(text: &str) -> Option<ScsiAddress> {
    let (controller, lun) = text.split_once('-')?;
    Some(ScsiAddress {
        controller: controller.parse().ok()?,
        lun: lun.parse().ok()?,
    })
}

/// The arguments of `blockdev-add`. `None` where the path is no UTF-8: QMP could not carry it.
pub(crate) fn block_node(
    address: ScsiAddress,
    path: &Path,
    facts: &ImageFacts,
    read_only: bool,
) -> Option<Value> {
    let protocol = if facts.format == ImageFormat::BlockDevice {
        "host_device"
    } else {
        "file"
    };
    let discard = if read_only { "ignore" } else { "unmap" };
    let file = json!({
        "driver": protocol,
        "node-name": file_node(address),
        "filename": path.to_str()?,
        "aio": "threads",
        "discard": discard,
        "read-only": read_only,
        "auto-read-only": false,
    });
    let mut node = json!({
        "driver": match facts.format {
            ImageFormat::Raw | ImageFormat::VhdFixed | ImageFormat::BlockDevice => "raw",
            ImageFormat::VhdDynamic => "vpc",
            ImageFormat::Vhdx => "vhdx",
            ImageFormat::Qcow2 => "qcow2",
        },
        "node-name": format_node(address),
        "file": file,
        "discard": discard,
        "read-only": read_only,
        "auto-read-only": false,
    });
    match facts.format {
        // The footer is no part of the disk.
        ImageFormat::VhdFixed => node["size"] = facts.virtual_size_bytes.into(),
        // Whatever the header says by now, no other file is opened.
        ImageFormat::Qcow2 => node["backing"] = Value::Null,
        _ => {}
    }
    Some(node)
}

/// The arguments of `device_add`.
///
/// Errors go to the guest: QEMU's default would stop the whole VM when the host's disk is full.
pub(crate) fn scsi_disk(address: ScsiAddress) -> Value {
    json!({
        "driver": "scsi-hd",
        "id": device_id(address),
        "bus": format!("{}.0", controller_id(address.controller)),
        "channel": 0,
        "scsi-id": 0,
        "lun": address.lun,
        "drive": format_node(address),
        "werror": "report",
        "rerror": "report",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ScsiAddress = ScsiAddress {
        controller: 1,
        lun: 63,
    };

    fn facts(format: ImageFormat) -> ImageFacts {
        ImageFacts {
            format,
            virtual_size_bytes: 8192,
            file_size_bytes: 8704,
            problem: None,
        }
    }

    #[test]
    fn names_lead_back_to_the_address() {
        assert_eq!(address_of_device(&device_id(HERE)), Some(HERE));
        assert_eq!(address_of_node(&format_node(HERE)), Some(HERE));
        assert_eq!(address_of_node(&file_node(HERE)), Some(HERE));
        for strange in ["scsi-1", "scsi-1-", "scsi-300-1", "scsi0", "", "disk-1-2"] {
            assert_eq!(address_of_device(strange), None, "{strange}");
        }
    }

    #[test]
    fn fixed_vhd_is_raw_up_to_its_footer() {
        let node = block_node(
            HERE,
            Path::new("/l/layer.vhd"),
            &facts(ImageFormat::VhdFixed),
            true,
        )
        .expect("UTF-8");
        assert_eq!((&node["driver"], &node["size"]), (&json!("raw"), &json!(8192)));
        for part in [&node, &node["file"]] {
            assert_eq!(
                (&part["read-only"], &part["auto-read-only"]),
                (&json!(true), &json!(false))
            );
        }
    }

    #[test]
    fn qcow2_may_open_no_other_file() {
        let node = block_node(HERE, Path::new("/d.qcow2"), &facts(ImageFormat::Qcow2), false).expect("UTF-8");
        assert!(node.get("backing").is_some_and(Value::is_null), "{node}");
    }

    #[test]
    fn every_format_is_named_so_that_nothing_is_guessed() {
        for (format, driver, protocol) in [
            (ImageFormat::Raw, "raw", "file"),
            (ImageFormat::VhdFixed, "raw", "file"),
            (ImageFormat::VhdDynamic, "vpc", "file"),
            (ImageFormat::Vhdx, "vhdx", "file"),
            (ImageFormat::Qcow2, "qcow2", "file"),
            (ImageFormat::BlockDevice, "raw", "host_device"),
        ] {
            let node = block_node(HERE, Path::new("/d"), &facts(format), false).expect("UTF-8");
            assert_eq!(
                (&node["driver"], &node["file"]["driver"]),
                (&json!(driver), &json!(protocol)),
                "{format}"
            );
        }
    }

    #[test]
    fn disk_sits_on_its_controllers_bus() {
        let device = scsi_disk(HERE);
        assert_eq!((&device["bus"], &device["lun"]), (&json!("scsi1.0"), &json!(63)));
    }
}
