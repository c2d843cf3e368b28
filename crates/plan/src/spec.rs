//! The OCI spec as it arrives: a JSON document of which the plan reads a few members and keeps all.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// An OCI runtime spec. Members nobody here knows survive in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    document: Value,
    view: View,
}

/// Why a text is no OCI spec.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// It is not JSON.
    #[error("the spec is not JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// It is JSON, but a member does not have the type the OCI runtime spec gives it.
    #[error("not an OCI spec: {0}")]
    NotASpec(#[source] serde_json::Error),
}

/// What the plan reads of a spec.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct View {
    #[serde(default)]
    pub(crate) root: Option<Root>,
    #[serde(default)]
    pub(crate) mounts: Option<Vec<Mount>>,
    #[serde(default)]
    pub(crate) windows: Option<Windows>,
    #[serde(default)]
    process: Option<serde_json::Map<String, Value>>,
}

/// OCI runtime spec, "Root".
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Root {
    #[serde(default)]
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) readonly: bool,
}

/// OCI runtime spec, "Mounts".
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Mount {
    #[serde(default)]
    pub(crate) destination: String,
    #[serde(default, rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) source: Option<String>,
    #[serde(default)]
    pub(crate) options: Option<Vec<String>>,
}

/// OCI runtime spec, "Windows-specific configuration": the layer folders serve Linux containers too.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Windows {
    #[serde(default, rename = "layerFolders")]
    pub(crate) layer_folders: Option<Vec<PathBuf>>,
}

impl Mount {
    /// Whether an option equals `ro` in any letter case.
    pub(crate) fn is_read_only(&self) -> bool {
        self.options
            .iter()
            .flatten()
            .any(|option| option.eq_ignore_ascii_case("ro"))
    }
}

impl Spec {
    /// Reads a spec's text.
    ///
    /// # Errors
    /// [`SpecError`], with line and column.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let document: Value = serde_json::from_str(text).map_err(SpecError::NotJson)?;
        let view: View = serde_json::from_str(text).map_err(SpecError::NotASpec)?;
        Ok(Self { document, view })
    }

    /// The document.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The same with a terminal for its process.
    #[must_use]
    pub fn with_terminal(mut self) -> Self {
        if let Some(process) = self.document.get_mut("process").and_then(Value::as_object_mut) {
            process.insert("terminal".to_owned(), Value::Bool(true));
        }
        self
    }

    pub(crate) fn root(&self) -> Root {
        self.view.root.clone().unwrap_or_default()
    }

    pub(crate) fn mounts(&self) -> &[Mount] {
        self.view.mounts.as_deref().unwrap_or_default()
    }

    pub(crate) fn layer_folders(&self) -> &[PathBuf] {
        self.view
            .windows
            .as_ref()
            .and_then(|w| w.layer_folders.as_deref())
            .unwrap_or_default()
    }
}
