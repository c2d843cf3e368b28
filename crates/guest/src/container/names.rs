//! What a container is called on the guest's own disks and cgroups: its id, and the document beside its root.

use std::{fs, io::Write as _, path::Path};

use serde_json::Value;

use crate::error::{AgentError, During, Result};

/// Longest container id.
const ID_BYTES: usize = 128;

/// Ids become file names and cgroup names.
pub(super) fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+');
    if id.is_empty() || id.len() > ID_BYTES || id.starts_with('.') || !id.bytes().all(allowed) {
        return Err(AgentError::Invalid(format!(
            "container id {id:?}: it must be 1 to {ID_BYTES} letters, digits and _ - . +, and not start with a dot"
        )));
    }
    Ok(())
}

/// Writes `config.json` for the runtime.
pub(super) fn write_document(bundle: &Path, spec: &Value) -> Result<()> {
    let path = bundle.join("config.json");
    let write = || {
        fs::create_dir_all(bundle)?;
        let mut file = fs::File::create(&path)?;
        serde_json::to_writer(&mut file, spec)?;
        file.flush()
    };
    write().during(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_be_paths_are_refused() {
        check_id("0a1b-c_d.e").unwrap();
        for id in ["", ".", "..", ".hidden", "a/b", "a b", "a\0", &"x".repeat(129)] {
            assert_eq!(check_id(id).unwrap_err().code(), 0x8007_0057, "{id:?}");
        }
    }
}
