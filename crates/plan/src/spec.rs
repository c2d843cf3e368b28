//! The OCI spec as it arrives: a JSON document of which the plan reads a few members and keeps all.

use std::{collections::BTreeMap, fmt, marker::PhantomData, path::PathBuf};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
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
    root: Option<Object<Root>>,
    #[serde(default)]
    mounts: Option<Vec<Object<Mount>>>,
    #[serde(default)]
    windows: Option<Object<Windows>>,
    #[serde(default)]
    process: Option<serde_json::Map<String, Value>>,
}

/// A JSON object. Without this, serde takes an array for a structure too, member by member; the rewriting would then
/// find no object where it must change one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// OCI runtime spec, "Root".
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Root {
    #[serde(default)]
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) readonly: bool,
}

/// An entry of `mounts` (OCI runtime spec, "Mounts"), as its host wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Mount {
    /// Where in the container.
    #[serde(default)]
    pub destination: String,
    /// Its type: `bind`, `virtual-disk` …
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// What is mounted.
    #[serde(default)]
    pub source: Option<String>,
    /// Options, such as `ro`.
    #[serde(default)]
    pub options: Option<Vec<String>>,
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
        let Object(view) = serde_json::from_str(text).map_err(SpecError::NotASpec)?;
        Ok(Self { document, view })
    }

    /// The document.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The version of the OCI runtime specification that it is written for, as it says.
    #[must_use]
    pub fn oci_version(&self) -> &str {
        let said = self.document.get("ociVersion").and_then(Value::as_str);
        said.unwrap_or_default()
    }

    /// One of its annotations, whatever it is.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&Value> {
        self.document.get("annotations")?.get(name)
    }

    /// Its annotations, by name; one whose value is no text is none.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let annotations = self.document.get("annotations").and_then(Value::as_object);
        let texts = annotations.into_iter().flatten();
        texts
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    /// The same with a terminal for its process.
    #[must_use]
    pub fn with_terminal(mut self) -> Self {
        if let Some(process) = self.document.get_mut("process").and_then(Value::as_object_mut) {
            process.insert("terminal".to_owned(), Value::Bool(true));
        }
        self
    }

    /// How many mounts it has, those that are left as they are too.
    #[must_use]
    pub fn mount_count(&self) -> usize {
        self.view.mounts.as_ref().map_or(0, Vec::len)
    }

    pub(crate) fn root(&self) -> Root {
        self.view.root.clone().unwrap_or_default().0
    }

    pub(crate) fn mounts(&self) -> impl Iterator<Item = &Mount> {
        self.view.mounts.iter().flatten().map(|Object(mount)| mount)
    }

    pub(crate) fn layer_folders(&self) -> &[PathBuf] {
        self.view
            .windows
            .as_ref()
            .and_then(|Object(windows)| windows.layer_folders.as_deref())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_the_texts_among_them_and_a_spec_without_a_version_has_none() {
        let spec = Spec::parse(r#"{ "annotations": { "a": "1", "b": 2 } }"#).unwrap();
        assert_eq!(spec.annotations(), [("a".to_owned(), "1".to_owned())].into());
        assert_eq!(spec.annotation("b"), Some(&Value::from(2)));
        assert_eq!(spec.oci_version(), "");
        let spec = Spec::parse(r#"{ "ociVersion": "1.0.2", "annotations": [] }"#).unwrap();
        assert_eq!(
            (spec.oci_version(), spec.annotations()),
            ("1.0.2", BTreeMap::new())
        );
    }
}
