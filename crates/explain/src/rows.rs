//! The lines of the table: the root filesystem's parts, then each mount.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_plan::Plan;
use serde_json::Value;

use crate::document::{DeviceDocument, Resources};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) item: String,
    pub(crate) host_path: String,
    pub(crate) device: String,
    pub(crate) guest_path: String,
    pub(crate) rights: &'static str,
    pub(crate) cost: &'static str,
    pub(crate) on_release: &'static str,
}

const NONE: &str = "-";

/// The lines of a plan. `new_shares` says of each share whether it is one of its own, or one that an earlier line has;
/// `seen` are the devices that earlier lines have.
pub(crate) fn of(
    plan: &Plan,
    resources: &Resources,
    new_shares: &[bool],
    process_isolation: bool,
    seen: &mut BTreeSet<DeviceDocument>,
) -> Vec<Row> {
    let mut rows = root(plan, resources, new_shares, process_isolation, seen);
    rows.extend(mounts(plan, resources, new_shares, seen));
    rows
}

/// What a device costs: nothing where an earlier line has it.
fn cost(device: DeviceDocument, seen: &mut BTreeSet<DeviceDocument>) -> &'static str {
    match (seen.insert(device), device) {
        (true, DeviceDocument::Vpmem { .. }) => "1 VPMEM device",
        (true, DeviceDocument::Scsi { .. }) => "1 SCSI disk",
        (false, _) => "a reference",
    }
}

fn root(
    plan: &Plan,
    resources: &Resources,
    new_shares: &[bool],
    process_isolation: bool,
    seen: &mut BTreeSet<DeviceDocument>,
) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut shares = resources.shares.iter().zip(new_shares);
    if let Some((share, new)) = shares.find(|(share, _)| share.mount_index.is_none()) {
        rows.push(Row {
            item: "root".to_owned(),
            host_path: share.host_path.clone(),
            device: "Plan 9 share".to_owned(),
            guest_path: share.guest_path.clone(),
            rights: rights(share.read_only),
            cost: share_cost(*new),
            on_release: "unmounted, no longer shared",
        });
    }
    let Some(needs) = &plan.needs.layers else {
        return rows;
    };
    let count = resources.layers.len();
    let scratch = resources.scratch.iter().map(|scratch| (None, scratch));
    let layers = resources.layers.iter().enumerate();
    for (n, layer) in layers.map(|(n, layer)| (Some(count - n), layer)).chain(scratch) {
        rows.push(Row {
            item: n.map_or("scratch".to_owned(), |n| format!("layer {n}")),
            host_path: layer.host_path.clone(),
            device: layer
                .device
                .map_or("host mount".to_owned(), |device| device.to_string()),
            guest_path: layer.guest_path.clone().unwrap_or_else(|| match n {
                Some(_) => NONE.to_owned(),
                None => needs.scratch_path.clone(),
            }),
            rights: rights(n.is_some()),
            cost: layer.device.map_or(NONE, |device| cost(device, seen)),
            on_release: match (process_isolation, n) {
                (true, _) => "unmounted",
                (false, Some(_)) => "unmounted and detached with its last container",
                (false, None) => "unmounted, detached",
            },
        });
    }
    rows.push(Row {
        item: "root".to_owned(),
        host_path: NONE.to_owned(),
        device: "overlay".to_owned(),
        guest_path: needs.root_path.clone(),
        rights: "rw",
        cost: NONE,
        on_release: "unmounted",
    });
    rows
}

fn mounts(
    plan: &Plan,
    resources: &Resources,
    new_shares: &[bool],
    seen: &mut BTreeSet<DeviceDocument>,
) -> Vec<Row> {
    let disks: BTreeMap<_, _> = resources
        .disks
        .iter()
        .map(|disk| (disk.mount_index, disk))
        .collect();
    let shares = resources.shares.iter().zip(new_shares);
    let shares: BTreeMap<_, _> = shares
        .filter_map(|(share, new)| Some((share.mount_index?, (share, new))))
        .collect();
    let entries = plan.spec.get("mounts").and_then(Value::as_array);
    let one = |(index, entry): (usize, &Value)| {
        let member = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or(NONE);
        let item = format!("mount {index} on {}", member("destination"));
        if let Some(disk) = disks.get(&index) {
            return Row {
                item,
                host_path: disk.host_path.clone(),
                device: disk.device.to_string(),
                guest_path: disk.guest_path.clone(),
                rights: rights(disk.read_only),
                cost: cost(disk.device, seen),
                on_release: if disk.auto_manage {
                    "unmounted, detached, file deleted"
                } else {
                    "unmounted, detached"
                },
            };
        }
        if let Some((share, new)) = shares.get(&index) {
            let names = share.allowed_names.as_ref().map(|names| names.join(", "));
            return Row {
                item,
                host_path: share.host_path.clone(),
                device: names.map_or("Plan 9 share".to_owned(), |names| {
                    format!("Plan 9 share of {names}")
                }),
                guest_path: share.guest_path.clone(),
                rights: rights(share.read_only),
                cost: share_cost(**new),
                on_release: "unmounted, no longer shared",
            };
        }
        Row {
            item,
            host_path: member("source").to_owned(),
            device: "left to the runtime".to_owned(),
            guest_path: NONE.to_owned(),
            rights: NONE,
            cost: NONE,
            on_release: NONE,
        }
    };
    entries.into_iter().flatten().enumerate().map(one).collect()
}

/// What a share costs: nothing where an earlier line has it.
fn share_cost(new: bool) -> &'static str {
    if new { "1 share" } else { "a reference" }
}

fn rights(read_only: bool) -> &'static str {
    if read_only { "ro" } else { "rw" }
}

impl std::fmt::Display for DeviceDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vpmem { index } => write!(f, "VPMEM {index}"),
            Self::Scsi { controller, lun } => write!(f, "SCSI {controller}:{lun}"),
        }
    }
}
