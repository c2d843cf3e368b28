//! A container's document, completed with what its root filesystem says.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Root, RootfsError, resolve};

/// Annotation that lists a container's anonymous volumes: a JSON array of absolute paths. Each is made a directory of the
/// root filesystem, and stays writable where the rest is not.
pub const VOLUMES: &str = "io.cofferdam.volumes";

/// Most that is read of passwd or group, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Most volumes of a container.
const MAX_VOLUMES: usize = 1024;

/// Completes the document of a container whose `root.path` is mounted, and whose process has not started:
///
/// * `process.user.username` (`user[:group]`, names or numbers) becomes `uid`, `gid` and `additionalGids`, with `HOME`
///   in the environment if there is none;
/// * `process.cwd` is made if it is missing;
/// * the volumes of [`VOLUMES`] are made, and bound onto themselves where the root is read-only.
///
/// Without a root path there is nothing to look at, and nothing changes.
///
/// # Errors
/// The user or group is unknown; a volume cannot be made; the system's.
pub fn settle(document: &mut Value) -> Result<(), RootfsError> {
    let Some(path) = document.pointer("/root/path").and_then(Value::as_str) else {
        return Ok(());
    };
    let volumes = volumes(document)?;
    let root = Root::open(Path::new(path))?;
    if let Some(process) = document.get_mut("process").and_then(Value::as_object_mut) {
        settle_user(&root, process)?;
        if let Some(cwd) = process.get("cwd").and_then(Value::as_str) {
            // Where that cannot be done, the runtime says what it misses; a mount may yet bring it.
            drop(root.make(cwd));
        }
    }
    bind_volumes(&root, &volumes, document)
}

/// Replaces `user.username` of a process's document by the numbers it has in this root, with `HOME` in the environment if
/// there is none. Without a name nothing changes.
///
/// # Errors
/// The user or group is unknown; the system's.
pub fn settle_user(root: &Root, process: &mut Map<String, Value>) -> Result<(), RootfsError> {
    let Some(user) = process.get_mut("user").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    let Some(Value::String(wanted)) = user.remove("username") else {
        return Ok(());
    };
    if wanted.is_empty() {
        return Ok(());
    }
    let read = |path: &str| {
        root.read(path, MAX_FILE_BYTES)
            .map(|content| String::from_utf8_lossy(&content).into_owned())
    };
    let account = resolve(&wanted, &read("/etc/passwd")?, &read("/etc/group")?)?;
    let further = user.get("additionalGids").and_then(Value::as_array).cloned();
    let mut groups: Vec<Value> = account.groups.into_iter().map(Value::from).collect();
    for group in further.into_iter().flatten() {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    user.insert("uid".to_owned(), account.uid.into());
    user.insert("gid".to_owned(), account.gid.into());
    user.insert("additionalGids".to_owned(), groups.into());
    let environment = process.entry("env").or_insert_with(|| json!([]));
    if let Some(environment) = environment.as_array_mut()
        && !environment
            .iter()
            .any(|entry| entry.as_str().is_some_and(|entry| entry.starts_with("HOME=")))
    {
        environment.push(format!("HOME={}", account.home).into());
    }
    Ok(())
}

fn volumes(document: &Value) -> Result<Vec<String>, RootfsError> {
    let Some(text) = document.get("annotations").and_then(|all| all.get(VOLUMES)) else {
        return Ok(Vec::new());
    };
    let refused = |why: String| RootfsError::Invalid(format!("annotation {VOLUMES}: {why}"));
    let text = text.as_str().ok_or_else(|| refused("it is no text".to_owned()))?;
    let mut paths: Vec<String> = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
    if paths.len() > MAX_VOLUMES {
        return Err(refused(format!("more than {MAX_VOLUMES} volumes")));
    }
    if let Some(path) = paths.iter().find(|path| !is_below_the_root(path)) {
        return Err(refused(format!("{path:?} is no absolute path below /")));
    }
    // Outer ones first, so that they do not cover inner ones.
    paths.sort_by_key(|path| path.matches('/').count());
    Ok(paths)
}

fn is_below_the_root(path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    path.starts_with('/')
        && !path.contains('\0')
        && parts.clone().all(|part| part != "..")
        && parts.next().is_some()
}

fn bind_volumes(root: &Root, volumes: &[String], document: &mut Value) -> Result<(), RootfsError> {
    let read_only = document.pointer("/root/readonly").and_then(Value::as_bool) == Some(true);
    let mut binds = Vec::new();
    for volume in volumes {
        let source = root.make_directory(volume)?;
        if read_only {
            let options = ["rbind", "rprivate", "rw"];
            binds
                .push(json!({ "destination": volume, "type": "bind", "source": source, "options": options }));
        }
    }
    if binds.is_empty() {
        return Ok(());
    }
    // Before all others: what is mounted inside of a volume must not be covered by it.
    let mounts = document["mounts"].as_array().cloned().unwrap_or_default();
    binds.extend(mounts);
    document["mounts"] = binds.into();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Scene(tempfile::TempDir);

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("etc")).unwrap();
            fs::write(dir.path().join("etc/passwd"), "web:x:33:34::/var/www:/bin/sh\n").unwrap();
            fs::write(dir.path().join("etc/group"), "adm:x:4:web\n").unwrap();
            Self(dir)
        }

        fn document(&self, process: Value) -> Value {
            json!({ "root": { "path": self.0.path().canonicalize().unwrap() }, "process": process })
        }
    }

    #[test]
    fn a_named_user_becomes_numbers_and_has_a_home() {
        let scene = Scene::new();
        let mut document = scene.document(json!({
            "user": { "username": "web", "uid": 0, "additionalGids": [4, 5] },
            "env": ["A=b"],
        }));
        settle(&mut document).unwrap();
        assert_eq!(
            document["process"],
            json!({
                "user": { "uid": 33, "gid": 34, "additionalGids": [34, 4, 5] },
                "env": ["A=b", "HOME=/var/www"],
            })
        );
        let mut homely = scene.document(json!({ "user": { "username": "web" }, "env": ["HOME=/x"] }));
        settle(&mut homely).unwrap();
        assert_eq!(homely["process"]["env"], json!(["HOME=/x"]));
    }

    #[test]
    fn a_document_without_a_name_keeps_its_numbers() {
        let scene = Scene::new();
        for user in [
            json!({ "uid": 7, "gid": 8 }),
            json!({ "uid": 7, "gid": 8, "username": "" }),
        ] {
            let mut document = scene.document(json!({ "user": user }));
            settle(&mut document).unwrap();
            assert_eq!(document["process"], json!({ "user": { "uid": 7, "gid": 8 } }));
        }
        let mut rootless = json!({ "process": { "user": { "username": "web" } } });
        settle(&mut rootless).unwrap();
        assert_eq!(rootless["process"]["user"]["username"], "web");
    }

    #[test]
    fn the_working_directory_and_volumes_are_made() {
        let scene = Scene::new();
        let mut document = scene.document(json!({ "cwd": "/srv/app" }));
        document["annotations"] = json!({ VOLUMES: "[\"/data/inner\", \"/data\"]" });
        settle(&mut document).unwrap();
        assert!(scene.0.path().join("srv/app").is_dir() && scene.0.path().join("data/inner").is_dir());
        assert_eq!(document.get("mounts"), None, "they are writable with the rest");
        document["root"]["readonly"] = json!(true);
        document["mounts"] = json!([{ "destination": "/proc" }]);
        settle(&mut document).unwrap();
        let destinations: Vec<_> = document["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| &mount["destination"])
            .collect();
        assert_eq!(destinations, ["/data", "/data/inner", "/proc"]);
        assert!(
            document["mounts"][1]["source"]
                .as_str()
                .unwrap()
                .ends_with("/data/inner")
        );
    }

    #[test]
    fn volumes_that_are_none_are_refused() {
        let scene = Scene::new();
        for (text, words) in [
            ("nonsense", "expected ident"),
            ("[\"data\"]", "\"data\" is no absolute path"),
            ("[\"/\"]", "\"/\" is no absolute path"),
            ("[\"/a/../..\"]", "is no absolute path"),
            ("[\"/etc/passwd\"]", "not a directory"),
        ] {
            let mut document = scene.document(json!({}));
            document["annotations"] = json!({ VOLUMES: text });
            let error = settle(&mut document).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
