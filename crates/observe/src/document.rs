//! The answer to an inspection, as JSON. Paths of the host that are not text are shown with replacement characters.

use std::collections::BTreeMap;

use cofferdam_ledger::{Table, Usage, request::DiskKind};
use serde::{Deserialize, Serialize};

/// A VM with its containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Its containers, by name.
    pub containers: Vec<ContainerDocument>,
    /// SCSI disks in use, and how many there can be.
    pub scsi: Usage,
    /// Persistent memory, likewise.
    pub vpmem: Usage,
    /// Every slot of the ledger that is not free.
    pub devices: Vec<Device>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerDocument {
    /// Its name.
    pub id: String,
    /// How its init is, and since when.
    #[serde(flatten)]
    pub init: ProcessDocument,
    /// When it was created, as in RFC 3339.
    pub created_at: String,
    /// Its bundle on the host.
    pub bundle: String,
    /// Where it lives in the VM.
    pub guest_root: String,
    /// Whether its init has a terminal.
    pub terminal: bool,
    /// The version of the OCI runtime specification its spec names.
    pub oci_version: String,
    /// Its spec's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its further processes, by name.
    pub execs: BTreeMap<String, ProcessDocument>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessDocument {
    /// `created`, `starting`, `running`, `paused` or `stopped`.
    pub status: String,
    /// When it began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Its exit code, or 128 plus the number of the signal that killed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<u8>,
}

/// One slot of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Where it is in the VM, in words: `SCSI 0:3`, `VPMEM 1`, `share 4`, `overlay 0`, `container mount 0`.
    pub device: String,
    /// The ledger's table.
    pub table: Table,
    /// The image, block device or directory; absent for overlays and mounts of running containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    /// The only names a share shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_names: Option<Vec<String>>,
    /// What a SCSI disk is on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskKind>,
    /// Whether the VM cannot write to it, whatever it tries; absent where only its mounts decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Whether the guest checks each block it reads (dm-verity); absent for what is no disk, and where the guest cannot say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verity: Option<bool>,
    /// How far it is: `attached`, or on its way.
    pub state: String,
    /// How many hold it. The ledger counts them: on the way in or out some may have no name in `heldBy`.
    pub references: usize,
    /// Where it is mounted in the VM.
    pub mounts: Vec<MountDocument>,
    /// Who holds it, and as what.
    pub held_by: Vec<Holder>,
}

/// One mount of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountDocument {
    /// Where in the VM; for a mount of a running container `<container>:<destination>`.
    pub guest_path: String,
    /// Read-only.
    pub read_only: bool,
    /// How far it is: `mounted`, or on its way.
    pub state: String,
    /// How many hold it.
    pub references: usize,
}

/// Who holds a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// The container.
    pub container: String,
    /// What it is there: `layer 2`, `scratch`, `root`, `mount 4 on /mnt/x`.
    pub item: String,
    /// The number of the container's mount, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_index: Option<usize>,
    /// Where that is in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Whether it was added while the container ran.
    pub added: bool,
    /// The mount of the device that it holds.
    pub guest_path: String,
}
