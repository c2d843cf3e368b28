//! What a `ModifySettings` request carries (GCS bridge protocol §7).
//!
//! Each resource's struct has the members of both the older and the newer original. Members with their zero value
//! are not written, and an absent member is its zero value: controller 0 and LUN 0 are never on the wire.

mod limits;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct};
use serde_json::Value;

pub use self::limits::{Constraints, Freezer};
use crate::json::{self, is_zero};

/// What to do with a resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RequestType {
    /// Add it. An empty or absent request type means the same.
    #[default]
    #[serde(alias = "")]
    Add,
    /// Take it away.
    Remove,
    /// Change it.
    Update,
    /// Announce it.
    PreAdd,
}

/// One change of one resource.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModificationRequest {
    /// What to do.
    pub request_type: RequestType,
    /// With which resource.
    pub resource: Resource,
}

impl ModificationRequest {
    /// Adds `resource`.
    pub fn add(resource: Resource) -> Self {
        Self {
            request_type: RequestType::Add,
            resource,
        }
    }

    /// Removes `resource`.
    pub fn remove(resource: Resource) -> Self {
        Self {
            request_type: RequestType::Remove,
            resource,
        }
    }

    /// Changes `resource`.
    pub fn update(resource: Resource) -> Self {
        Self {
            request_type: RequestType::Update,
            resource,
        }
    }
}

/// A resource of the guest.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// A SCSI disk, mounted in the VM.
    MappedVirtualDisk(MappedVirtualDisk),
    /// A SCSI disk as a device.
    ScsiDevice(ScsiDevice),
    /// Persistent memory, mounted in the VM.
    VpmemDevice(VpmemDevice),
    /// An overlay of layers.
    CombinedLayers(CombinedLayers),
    /// A Plan 9 share, mounted in the VM.
    MappedDirectory(MappedDirectory),
    /// A network adapter.
    Network(Network),
    /// A mount of a running container. An extension: see [`ContainerMount`].
    ContainerMount(ContainerMount),
    /// Limits of a container.
    ContainerConstraints(Constraints),
    /// Limits of all containers together. An extension: see [`Constraints`].
    PodLimits(Constraints),
    /// Whether a container runs. An extension: see [`Freezer`].
    Freezer(Freezer),
    /// A resource this crate has no type for. To be answered with an error, not taken for broken JSON.
    Unknown {
        /// Its name.
        resource_type: String,
        /// Its settings as they came.
        settings: Value,
    },
}

impl Default for Resource {
    fn default() -> Self {
        Self::Unknown {
            resource_type: String::new(),
            settings: Value::Null,
        }
    }
}

impl Resource {
    /// The resource's name on the wire.
    pub fn name(&self) -> &str {
        match self {
            Self::MappedVirtualDisk(_) => "MappedVirtualDisk",
            Self::ScsiDevice(_) => "SCSIDevice",
            Self::VpmemDevice(_) => "VPMemDevice",
            Self::CombinedLayers(_) => "CombinedLayers",
            Self::MappedDirectory(_) => "MappedDirectory",
            Self::Network(_) => "Network",
            Self::ContainerMount(_) => "CofferdamContainerMount",
            Self::ContainerConstraints(_) => "ContainerConstraints",
            Self::PodLimits(_) => "CofferdamPodLimits",
            Self::Freezer(_) => "CofferdamFreezer",
            Self::Unknown { resource_type, .. } => resource_type,
        }
    }

    fn from_parts(resource_type: String, settings: Value) -> Result<Self, serde_json::Error> {
        // Absent settings are an object without members; a resource without a type keeps what came.
        let object = if settings.is_null() {
            Value::Object(Default::default())
        } else {
            settings.clone()
        };
        Ok(match resource_type.as_str() {
            "MappedVirtualDisk" => Self::MappedVirtualDisk(json::from_value(object)?),
            "SCSIDevice" => Self::ScsiDevice(json::from_value(object)?),
            "VPMemDevice" => Self::VpmemDevice(json::from_value(object)?),
            "CombinedLayers" => Self::CombinedLayers(json::from_value(object)?),
            "MappedDirectory" => Self::MappedDirectory(json::from_value(object)?),
            "Network" => Self::Network(json::from_value(object)?),
            "CofferdamContainerMount" => Self::ContainerMount(json::from_value(object)?),
            "ContainerConstraints" => Self::ContainerConstraints(json::from_value(object)?),
            "CofferdamPodLimits" => Self::PodLimits(json::from_value(object)?),
            "CofferdamFreezer" => Self::Freezer(json::from_value(object)?),
            _ => Self::Unknown {
                resource_type,
                settings,
            },
        })
    }
}

impl Serialize for ModificationRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut request = serializer.serialize_struct("ModificationRequest", 3)?;
        request.serialize_field("RequestType", &self.request_type)?;
        request.serialize_field("ResourceType", self.resource.name())?;
        match &self.resource {
            Resource::MappedVirtualDisk(settings) => request.serialize_field("Settings", settings)?,
            Resource::ScsiDevice(settings) => request.serialize_field("Settings", settings)?,
            Resource::VpmemDevice(settings) => request.serialize_field("Settings", settings)?,
            Resource::CombinedLayers(settings) => request.serialize_field("Settings", settings)?,
            Resource::MappedDirectory(settings) => request.serialize_field("Settings", settings)?,
            Resource::Network(settings) => request.serialize_field("Settings", settings)?,
            Resource::ContainerMount(settings) => request.serialize_field("Settings", settings)?,
            Resource::ContainerConstraints(settings) | Resource::PodLimits(settings) => {
                request.serialize_field("Settings", settings)?;
            }
            Resource::Freezer(settings) => request.serialize_field("Settings", settings)?,
            Resource::Unknown {
                settings: Value::Null,
                ..
            } => request.skip_field("Settings")?,
            Resource::Unknown { settings, .. } => request.serialize_field("Settings", settings)?,
        }
        request.end()
    }
}

impl<'de> Deserialize<'de> for ModificationRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        struct Parts {
            request_type: RequestType,
            resource_type: String,
            settings: Value,
        }
        let Parts {
            request_type,
            resource_type,
            settings,
        } = Parts::deserialize(deserializer)?;
        let name = resource_type.clone();
        let resource = Resource::from_parts(resource_type, settings)
            .map_err(|error| de::Error::custom(format!("in the settings of {name}: {error}")))?;
        Ok(Self {
            request_type,
            resource,
        })
    }
}

/// A SCSI disk, mounted in the VM (§7.1). Adding one with an empty mount path only attaches.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MappedVirtualDisk {
    /// Where to mount it.
    #[serde(skip_serializing_if = "is_zero")]
    pub mount_path: String,
    /// LUN on its controller.
    #[serde(skip_serializing_if = "is_zero")]
    pub lun: u8,
    /// Controller index.
    #[serde(skip_serializing_if = "is_zero")]
    pub controller: u8,
    /// Partition, from 1; 0 for the whole disk.
    #[serde(skip_serializing_if = "is_zero")]
    pub partition: u64,
    /// Mount read-only, without replaying a journal.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only: bool,
    /// Encrypt with a key that is thrown away.
    #[serde(skip_serializing_if = "is_zero")]
    pub encrypted: bool,
    /// Mount options.
    #[serde(skip_serializing_if = "is_zero")]
    pub options: Vec<String>,
    /// Link the mount path to the device node rather than mount it.
    #[serde(skip_serializing_if = "is_zero")]
    pub block_dev: bool,
    /// Format it unless it has the file system already.
    #[serde(skip_serializing_if = "is_zero")]
    pub ensure_filesystem: bool,
    /// `ext4` or `xfs`; empty for whatever is found.
    #[serde(skip_serializing_if = "is_zero")]
    pub filesystem: String,
    /// Which hash tree it must have. The guest reads the tree's superblock itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verity_info: Option<VerityInfo>,
}

/// A SCSI disk as a device (§7.2). It can only be removed: the guest lets go of it, so that the host may pull it out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ScsiDevice {
    /// Controller index.
    #[serde(skip_serializing_if = "is_zero")]
    pub controller: u8,
    /// LUN on that controller.
    #[serde(skip_serializing_if = "is_zero")]
    pub lun: u8,
}

/// Persistent memory, mounted read-only in the VM (§7.3).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VpmemDevice {
    /// Device number, from 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub device_number: u32,
    /// Where to mount it.
    #[serde(skip_serializing_if = "is_zero")]
    pub mount_path: String,
    /// Where on the device, if several layers share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping_info: Option<VpmemMapping>,
    /// Which hash tree it must have. The guest reads the tree's superblock itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verity_info: Option<VerityInfo>,
}

/// What a device's dm-verity hash tree must be (§7.1, §7.3). The original calls it deprecated, since its guest finds the
/// tree by itself; what the guest finds proves nothing unless the root digest comes from elsewhere, so this project's
/// guest holds to [`root_digest`](Self::root_digest). The other members say nothing that the tree's superblock does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VerityInfo {
    /// Size of the file system before the tree, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub ext4_size_in_bytes: u64,
    /// Version of the superblock.
    #[serde(skip_serializing_if = "is_zero")]
    pub version: u32,
    /// Name of the hash algorithm.
    #[serde(skip_serializing_if = "is_zero")]
    pub algorithm: String,
    /// Whether there is a superblock.
    #[serde(skip_serializing_if = "is_zero")]
    pub super_block: bool,
    /// The root digest in hexadecimal; empty where any will do.
    #[serde(skip_serializing_if = "is_zero")]
    pub root_digest: String,
    /// The salt in hexadecimal.
    #[serde(skip_serializing_if = "is_zero")]
    pub salt: String,
    /// Bytes of a block.
    #[serde(skip_serializing_if = "is_zero")]
    pub block_size: u32,
}

/// A part of a persistent-memory device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VpmemMapping {
    /// First byte.
    #[serde(skip_serializing_if = "is_zero")]
    pub device_offset_in_bytes: u64,
    /// Number of bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub device_size_in_bytes: u64,
}

/// An overlay of layers (§7.4). Removing needs only the root path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CombinedLayers {
    /// The container it is for.
    #[serde(rename = "ContainerID", skip_serializing_if = "is_zero")]
    pub container_id: String,
    /// Where the overlay is mounted.
    #[serde(skip_serializing_if = "is_zero")]
    pub container_root_path: String,
    /// Lower directories, topmost first.
    #[serde(skip_serializing_if = "is_zero")]
    pub layers: Vec<Layer>,
    /// The scratch: `upper` and `work` live below it. Empty for a read-only overlay.
    #[serde(skip_serializing_if = "is_zero")]
    pub scratch_path: String,
}

/// One lower directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Layer {
    /// Windows guests only.
    #[serde(skip_serializing_if = "is_zero")]
    pub id: String,
    /// The directory.
    #[serde(skip_serializing_if = "is_zero")]
    pub path: String,
}

/// A Plan 9 share, mounted in the VM (§7.5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MappedDirectory {
    /// Where to mount it.
    #[serde(skip_serializing_if = "is_zero")]
    pub mount_path: String,
    /// The host's vsock port: [`crate::ports::PLAN9`].
    #[serde(skip_serializing_if = "is_zero")]
    pub port: u32,
    /// The share's name: decimal digits.
    #[serde(skip_serializing_if = "is_zero")]
    pub share_name: String,
    /// Mount read-only.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only: bool,
}

/// A mount of the VM, brought into a running container or taken out of it. The request's container id names the
/// container. An extension of this project: only a guest with the capability
/// [`crate::message::GuestDefinedCapabilities::cofferdam_container_mounts`] serves it (§13.9).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerMount {
    /// What is mounted: a path of the VM, or a `sandbox://` path. A removal need not name it.
    #[serde(skip_serializing_if = "is_zero")]
    pub source: String,
    /// Where: an absolute path in the container.
    #[serde(skip_serializing_if = "is_zero")]
    pub destination: String,
    /// Mount read-only.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only: bool,
}

/// A network adapter (§7.6). Older guests read one address and one gateway, newer ones the lists: a host that does
/// not know its guest sends both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Network {
    /// The network namespace it belongs to; compared in lower case.
    #[serde(rename = "NamespaceID", skip_serializing_if = "is_zero")]
    pub namespace_id: String,
    /// The adapter's GUID.
    #[serde(rename = "ID", skip_serializing_if = "is_zero")]
    pub id: String,
    /// Its hardware address, with hyphens.
    #[serde(skip_serializing_if = "is_zero")]
    pub mac_address: String,
    /// Older form: its address.
    #[serde(rename = "IPAddress", skip_serializing_if = "is_zero")]
    pub ip_address: String,
    /// Older form: the length of its network prefix, in bits.
    #[serde(skip_serializing_if = "is_zero")]
    pub prefix_length: u8,
    /// Older form: its gateway.
    #[serde(skip_serializing_if = "is_zero")]
    pub gateway_address: String,
    /// Newer form: its addresses.
    #[serde(rename = "IPConfigs", skip_serializing_if = "is_zero")]
    pub ip_configs: Vec<IpConfig>,
    /// Newer form: its routes.
    #[serde(skip_serializing_if = "is_zero")]
    pub routes: Vec<Route>,
    /// Domain names to search, separated by commas.
    #[serde(rename = "DNSSuffix", skip_serializing_if = "is_zero")]
    pub dns_suffix: String,
    /// Name servers, separated by commas.
    #[serde(rename = "DNSServerList", skip_serializing_if = "is_zero")]
    pub dns_server_list: String,
    /// Give its routes a low metric.
    #[serde(skip_serializing_if = "is_zero")]
    pub enable_low_metric: bool,
    /// Bytes the network needs for encapsulation; subtracted from the MTU.
    #[serde(skip_serializing_if = "is_zero")]
    pub encap_overhead: u16,
    /// The adapter is an assigned PCI device.
    #[serde(rename = "VPCIAssigned", skip_serializing_if = "is_zero")]
    pub vpci_assigned: bool,
    /// Route by source address.
    #[serde(skip_serializing_if = "is_zero")]
    pub policy_based_routing: bool,
    /// Hardware addresses that are known without asking. An extension of this project: another guest asks.
    #[serde(rename = "CofferdamNeighbors", skip_serializing_if = "is_zero")]
    pub neighbors: Vec<Neighbor>,
}

/// A hardware address that is known without asking.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Neighbor {
    /// Whose it is.
    #[serde(rename = "IPAddress", skip_serializing_if = "is_zero")]
    pub ip_address: String,
    /// The hardware address.
    #[serde(skip_serializing_if = "is_zero")]
    pub mac_address: String,
}

/// One address of an adapter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpConfig {
    /// The address.
    #[serde(rename = "IPAddress", skip_serializing_if = "is_zero")]
    pub ip_address: String,
    /// The length of its network prefix, in bits.
    #[serde(skip_serializing_if = "is_zero")]
    pub prefix_length: u8,
}

/// One route of an adapter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Route {
    /// The gateway.
    #[serde(skip_serializing_if = "is_zero")]
    pub next_hop: String,
    /// The destination, as address/length.
    #[serde(skip_serializing_if = "is_zero")]
    pub destination_prefix: String,
    /// The metric.
    #[serde(skip_serializing_if = "is_zero")]
    pub metric: u16,
}
