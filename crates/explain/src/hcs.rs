//! The documents a Windows host sends its Host Compute Service for the same allocation (GCS bridge protocol §7
//! and §7.8).
//!
//! Each is a `ModifySettingRequest`: the host's part, then the guest's, which HCS passes on once the host's part is
//! done. A mount that needs no new device has the guest's part only.

use std::path::Path;

use cofferdam_ledger::{
    Lease, Request,
    request::{DiskKind, HostRequest},
};
use cofferdam_protocol::{
    ports,
    settings::{ModificationRequest, RequestType},
};
use serde::Serialize;

/// A `ModifySettingRequest`. Parts that do not apply are absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HcsRequest {
    /// The resource of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_path: Option<String>,
    /// What the host does with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_type: Option<RequestType>,
    /// The host's settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<HcsSettings>,
    /// What the guest is asked for then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_request: Option<ModificationRequest>,
}

/// The settings of a host resource. Members that are zero are absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum HcsSettings {
    /// A SCSI attachment.
    #[serde(rename_all = "PascalCase")]
    Attachment {
        /// The image or block device.
        path: String,
        /// `VirtualDisk` or `PassThru`.
        #[serde(rename = "Type")]
        kind: &'static str,
        /// Whether the guest may not write.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        read_only: bool,
    },
    /// A persistent-memory device.
    #[serde(rename_all = "PascalCase")]
    PersistentMemory {
        /// The image.
        host_path: String,
        /// Always.
        read_only: bool,
        /// `Vhd1` or `Vhdx`.
        image_format: &'static str,
    },
    /// A Plan 9 share.
    #[serde(rename_all = "PascalCase")]
    Share {
        /// Its name.
        name: String,
        /// The name a client asks for: the same.
        access_name: String,
        /// The directory.
        path: String,
        /// The vsock port it is served on.
        port: u32,
        /// `FLAG_…`.
        flags: u32,
        /// The only names served.
        #[serde(skip_serializing_if = "Option::is_none")]
        allowed_files: Option<Vec<String>>,
    },
}

/// Writes are refused.
const FLAG_READ_ONLY: u32 = 0x1;
/// Owners, modes and links are Linux ones.
const FLAG_LINUX_METADATA: u32 = 0x4;
/// Only the allowed files are served.
const FLAG_RESTRICT: u32 = 0x80;

/// The documents of an allocation's steps, in their order.
pub(crate) fn documents(steps: &[(Lease, Request)]) -> Vec<HcsRequest> {
    let mut documents: Vec<(Lease, HcsRequest)> = Vec::new();
    for (lease, request) in steps {
        match request {
            Request::Host(request) => {
                if let Some((path, settings)) = resource(request) {
                    let document = HcsRequest {
                        resource_path: Some(path),
                        request_type: Some(RequestType::Add),
                        settings: Some(settings),
                        guest_request: None,
                    };
                    documents.push((*lease, document));
                }
            }
            Request::Guest(request) => {
                let guest_request = Some(ModificationRequest::from(request));
                match documents.last_mut() {
                    Some((of, document)) if of == lease && document.guest_request.is_none() => {
                        document.guest_request = guest_request;
                    }
                    _ => {
                        let document = HcsRequest {
                            guest_request,
                            ..HcsRequest::default()
                        };
                        documents.push((*lease, document));
                    }
                }
            }
        }
    }
    documents.into_iter().map(|(_, document)| document).collect()
}

/// The resource a step of the way in adds; `None` for one of the way out, which an allocation has not.
fn resource(request: &HostRequest) -> Option<(String, HcsSettings)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Some(match request {
        HostRequest::AttachScsi {
            address,
            path,
            kind,
            read_only,
        } => (
            format!(
                "VirtualMachine/Devices/Scsi/{}/Attachments/{}",
                address.controller, address.lun
            ),
            HcsSettings::Attachment {
                path: text(path),
                kind: match kind {
                    DiskKind::Virtual => "VirtualDisk",
                    DiskKind::Physical => "PassThru",
                },
                read_only: *read_only,
            },
        ),
        HostRequest::AttachVpmem { index, path } => (
            format!("VirtualMachine/Devices/VirtualPMem/Devices/{index}"),
            HcsSettings::PersistentMemory {
                host_path: text(path),
                read_only: true,
                image_format: image_format(path),
            },
        ),
        HostRequest::AddShare {
            share,
            path,
            read_only,
            allowed_names,
        } => {
            let read_only = if *read_only { FLAG_READ_ONLY } else { 0 };
            let restricted = if allowed_names.is_some() { FLAG_RESTRICT } else { 0 };
            let settings = HcsSettings::Share {
                name: share.to_string(),
                access_name: share.to_string(),
                path: text(path),
                port: ports::PLAN9,
                flags: FLAG_LINUX_METADATA | read_only | restricted,
                allowed_files: allowed_names.clone(),
            };
            ("VirtualMachine/Devices/Plan9/Shares".to_owned(), settings)
        }
        HostRequest::DetachScsi { .. }
        | HostRequest::DetachVpmem { .. }
        | HostRequest::RemoveShare { .. }
        | HostRequest::DeleteFile { .. } => return None,
    })
}

fn image_format(path: &Path) -> &'static str {
    let vhdx = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("vhdx"));
    if vhdx { "Vhdx" } else { "Vhd1" }
}
