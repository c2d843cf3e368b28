//! Any texts as an image's documents: manifest or index, NUL, configuration. Digests are put right, so that what is
//! behind their check is reached.

#![no_main]

use cofferdam_archive::Digest;
use cofferdam_store::{DocumentKind, Documents, Platform, Reference, StoreError};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(reference) = text.parse::<Reference>()
    {
        let shown = reference.to_string();
        assert_eq!(
            shown.parse::<Reference>().map(|again| again.to_string()),
            Ok(shown)
        );
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (manifest, config) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let mut first = manifest.to_vec();
    if let Ok(mut value) = serde_json::from_slice::<Value>(manifest)
        && let Some(descriptor) = value.get_mut("config").and_then(Value::as_object_mut)
    {
        descriptor.insert("digest".to_owned(), json!(Digest::of(config).to_string()));
        first = value.to_string().into_bytes();
    }
    let fetch = &mut |digest: &Digest, _, kind| match kind {
        DocumentKind::Config => Ok(config.to_vec()),
        DocumentKind::Manifest => Err(StoreError::NotFound(digest.to_string())),
    };
    if let Ok(documents) = Documents::gather("fuzz", first, &Platform::default(), fetch) {
        assert!(!documents.layers().is_empty());
    }
});
