//! Adding and removing devices of a running VM over QMP.
//!
//! Every removal is done in steps of which each finds out by itself whether it is still needed, so a removal
//! that failed half way can be repeated. No lock is held: devices differ in name, and QEMU orders the commands.

use std::time::Duration;

use cofferdam_ledger::address::ScsiAddress;
use serde_json::{Value, json};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    disk,
    qmp::{QmpClient, QmpError},
};

/// For one command. Opening an image on a slow disk is part of it.
pub(crate) const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// From a device's removal to the event that it is gone. The guest let go of it before.
const UNPLUG_LIMIT: Duration = Duration::from_secs(10);
/// From that event until QEMU has let go of what the device used.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);
const RELEASE_PAUSE: Duration = Duration::from_millis(5);

type Step = Result<(), QmpError>;

/// Plugs a disk in; takes the block node away again if the device cannot be added.
pub(crate) async fn attach_scsi(qmp: &QmpClient, address: ScsiAddress, node: Value) -> Step {
    qmp.execute("blockdev-add", node, COMMAND_LIMIT).await?;
    let added = qmp
        .execute("device_add", disk::scsi_disk(address), COMMAND_LIMIT)
        .await;
    undone(added.map(drop), detach_scsi(qmp, address)).await
}

/// Pulls a disk out, in as many steps as are left to do.
pub(crate) async fn detach_scsi(qmp: &QmpClient, address: ScsiAddress) -> Step {
    remove_device(qmp, &disk::device_id(address)).await?;
    release(qmp, Held::Node(disk::format_node(address))).await
}

/// The name of persistent memory `index` for `device_add`.
pub(crate) fn pmem_id(index: u32) -> String {
    format!("pmem-{index}")
}

/// The name of the memory object behind it.
pub(crate) fn pmem_object(index: u32) -> String {
    format!("pmem-image-{index}")
}

/// Plugs a file's first `length` bytes in as read-only persistent memory. `length` is a multiple of 4096.
pub(crate) async fn attach_vpmem(qmp: &QmpClient, index: u32, path: &str, length: u64) -> Step {
    let object = pmem_object(index);
    let file = json!({
        "qom-type": "memory-backend-file", "id": object, "mem-path": path, "size": length,
        "share": false, "readonly": true, "rom": "on",
    });
    qmp.execute("object-add", file, COMMAND_LIMIT).await?;
    let device =
        json!({ "driver": "nvdimm", "id": pmem_id(index), "memdev": object, "unarmed": true, "slot": index });
    let added = qmp.execute("device_add", device, COMMAND_LIMIT).await;
    undone(added.map(drop), detach_vpmem(qmp, index)).await
}

/// Pulls persistent memory out. QEMU 10.0 refuses: docs/decisions/0060-vpmem-on-qemu.md.
pub(crate) async fn detach_vpmem(qmp: &QmpClient, index: u32) -> Step {
    remove_device(qmp, &pmem_id(index)).await?;
    release(qmp, Held::Object(pmem_object(index))).await
}

/// The first failure, with the failure of undoing it beside it.
async fn undone(result: Step, undo: impl Future<Output = Step>) -> Step {
    let Err(first) = result else { return Ok(()) };
    if matches!(first, QmpError::Closed(_)) {
        return Err(first);
    }
    match (first, undo.await) {
        (first, Ok(())) => Err(first),
        (QmpError::Refused { class, description }, Err(second)) => Err(QmpError::Refused {
            class,
            description: format!("{description}; undoing it failed too: {second}"),
        }),
        (first, Err(second)) => {
            tracing::warn!(%first, %second, "a half-added device could not be taken out");
            Err(first)
        }
    }
}

/// Takes a device out and waits until QEMU says that it is gone. A device that is not there is no error.
async fn remove_device(qmp: &QmpClient, id: &str) -> Step {
    // Before the command: the event may come before the answer.
    let mut events = qmp.events();
    let deadline = Instant::now() + UNPLUG_LIMIT;
    match qmp
        .execute("device_del", json!({ "id": id }), COMMAND_LIMIT)
        .await
    {
        Ok(_) => {}
        Err(QmpError::Refused { class, .. }) if class == "DeviceNotFound" => return Ok(()),
        // A removal that an earlier attempt began may still be under way: then wait for its end.
        Err(QmpError::Refused { description, .. }) if description.contains("in the process of unplug") => {}
        Err(error) => return Err(error),
    }
    loop {
        let next = async {
            tokio::select! {
                event = events.recv() => Ok(event),
                why = qmp.closed() => Err(why),
            }
        };
        let next = match timeout_at(deadline, next).await {
            Ok(next) => Ok(next?),
            Err(late) => Err(late),
        };
        match next {
            Ok(Ok(event)) if event.text("device") != id => {}
            Ok(Ok(event)) if event.name == "DEVICE_DELETED" => return Ok(()),
            Ok(Ok(event)) if event.name == "DEVICE_UNPLUG_GUEST_ERROR" => {
                return Err(QmpError::Refused {
                    class: event.name,
                    description: format!("the guest did not let go of {id}"),
                });
            }
            Ok(Ok(_)) => {}
            // Too many events at once: this one may have been among those lost.
            Ok(Err(RecvError::Lagged(_))) => {
                if !child_exists(qmp, "/machine/peripheral", id).await? {
                    return Ok(());
                }
            }
            Ok(Err(RecvError::Closed)) => return Err(QmpError::Closed(None)),
            Err(_) if child_exists(qmp, "/machine/peripheral", id).await? => {
                return Err(QmpError::TimedOut {
                    limit_ms: UNPLUG_LIMIT.as_millis() as u64,
                });
            }
            Err(_) => return Ok(()),
        }
    }
}

/// What a device used, by name.
enum Held {
    Node(String),
    Object(String),
}

impl Held {
    async fn delete(&self, qmp: &QmpClient) -> Step {
        let (command, arguments) = match self {
            Self::Node(name) => ("blockdev-del", json!({ "node-name": name })),
            Self::Object(name) => ("object-del", json!({ "id": name })),
        };
        qmp.execute(command, arguments, COMMAND_LIMIT).await.map(drop)
    }

    async fn exists(&self, qmp: &QmpClient) -> Result<bool, QmpError> {
        match self {
            Self::Node(name) => Ok(node_names(qmp).await?.contains(name)),
            Self::Object(name) => child_exists(qmp, "/objects", name).await,
        }
    }
}

/// Frees what a removed device used. It stays in use for a moment after the device is gone.
async fn release(qmp: &QmpClient, held: Held) -> Step {
    let deadline = Instant::now() + RELEASE_LIMIT;
    loop {
        match held.delete(qmp).await {
            Ok(()) => return Ok(()),
            Err(error @ QmpError::Refused { .. }) => {
                if !held.exists(qmp).await? {
                    return Ok(());
                }
                if Instant::now() >= deadline {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        sleep(RELEASE_PAUSE).await;
    }
}

async fn child_exists(qmp: &QmpClient, path: &str, name: &str) -> Result<bool, QmpError> {
    Ok(children(qmp, path).await?.iter().any(|child| child == name))
}

/// The names of all block nodes.
pub(crate) async fn node_names(qmp: &QmpClient) -> Result<Vec<String>, QmpError> {
    let nodes = qmp
        .execute("query-named-block-nodes", json!({ "flat": true }), COMMAND_LIMIT)
        .await?;
    Ok(texts(&nodes, "node-name"))
}

/// The names of the children of an object in QEMU's object tree.
pub(crate) async fn children(qmp: &QmpClient, path: &str) -> Result<Vec<String>, QmpError> {
    let list = qmp
        .execute("qom-list", json!({ "path": path }), COMMAND_LIMIT)
        .await?;
    Ok(texts(&list, "name"))
}

fn texts(list: &Value, key: &str) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.get(key)?.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests;
