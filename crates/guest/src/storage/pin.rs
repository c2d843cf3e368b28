//! The root digest that a layer must have (`VerityInfo` of GCS bridge protocol §7.1 and §7.3). The guest reads the hash
//! tree by itself; what it has to be, only somebody else can say.

use cofferdam_mounting::verity::Digest;
use serde_json::Value;

use crate::error::{AgentError, Result};

/// The digest that a request pins, if it does.
pub(super) fn root_digest(info: Option<&Value>) -> Result<Option<Digest>> {
    let Some(info) = info else {
        return Ok(None);
    };
    match info.get("RootDigest") {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.parse()?)),
        Some(other) => Err(AgentError::Invalid(format!(
            "VerityInfo.RootDigest is no text: {other}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_digest_is_pinned_where_it_is_said_and_must_be_one() {
        let digest = "ab".repeat(32);
        let pinned = root_digest(Some(&json!({ "RootDigest": digest }))).unwrap();
        assert_eq!(pinned.map(|pinned| pinned.to_string()), Some(digest));
        assert_eq!(root_digest(None).unwrap(), None);
        assert_eq!(
            root_digest(Some(&json!({ "Algorithm": "sha256" }))).unwrap(),
            None
        );
        assert!(root_digest(Some(&json!({ "RootDigest": "ab" }))).is_err());
        assert!(root_digest(Some(&json!({ "RootDigest": 7 }))).is_err());
    }
}
