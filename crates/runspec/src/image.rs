//! What of an image's configuration matters to who runs it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::SpecifyError;

/// The member `config` of an image's configuration (OCI image specification, "Image Configuration").
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageConfig {
    /// As whom: `user[:group]`, names or numbers.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub user: String,
    /// `NAME=value`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// What is run.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    /// Its arguments, or what is run where there is no entrypoint.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// Where.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub working_dir: String,
    /// Directories that are not the image's own.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub volumes: BTreeMap<String, Value>,
}

/// Builders write `null` for whatever was not set.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl ImageConfig {
    /// Takes it from the configuration's document. One without `config` wishes nothing.
    ///
    /// # Errors
    /// A member has another type than the specification gives it.
    pub fn from_document(document: &Value) -> Result<Self, SpecifyError> {
        match document.get("config") {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(config) => Self::deserialize(config).map_err(|error| SpecifyError::Image(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_absent_or_null_is_empty_and_the_rest_is_not_looked_at() {
        for document in [
            json!({}),
            json!({ "config": null }),
            json!({ "config": { "Cmd": null, "Volumes": null, "Labels": 7 } }),
        ] {
            assert_eq!(
                ImageConfig::from_document(&document).unwrap(),
                ImageConfig::default()
            );
        }
        let error = ImageConfig::from_document(&json!({ "config": { "Env": "A=b" } }))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("the image's configuration: invalid type"),
            "{error}"
        );
    }
}
