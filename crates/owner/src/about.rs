//! What a container is, for whoever asks when its owner cannot be asked any more.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{OwnerError, root};

/// `about.json`: written by the owner alone, and kept with the record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct About {
    /// The image it was made of, as the user named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The version of the OCI runtime specification its spec names.
    pub oci_version: String,
    /// Its spec's annotations.
    pub annotations: BTreeMap<String, String>,
    /// The directory its spec names as its root on the host; none where the root is made of layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<String>,
    /// Its network, in the words of whoever made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Value>,
    /// When it was created, as in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// When its init was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
}

impl About {
    /// Writes it to an owner's directory, in the place of an earlier one.
    ///
    /// # Errors
    /// The system's; the earlier one stays then.
    pub fn write(&self, dir: &Path) -> Result<(), OwnerError> {
        root::write_json(dir, root::ABOUT, self)
    }
}
