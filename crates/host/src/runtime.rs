//! The host's OCI runtime: runc, crun, youki or another with the same command line (`run`, `kill`, `delete`).

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use cofferdam_mounting::mount_point;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Owner,
    error::{During, HostError, Result},
    files::remove_file,
    processes,
};

/// Looked for in this order.
const KNOWN: [&str; 3] = ["runc", "crun", "youki"];
/// Where administrators' programs are, which a search path may leave out.
const SYSTEM_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// An OCI runtime on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciRuntime {
    program: PathBuf,
}

/// A container of an owner, as its runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalContainer {
    runtime: OciRuntime,
    id: String,
    owner: Owner,
}

/// What another process has to know to end the container.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    program: PathBuf,
    id: String,
}

impl OciRuntime {
    /// A runtime by its path or name, or the first that is there of runc, crun and youki.
    ///
    /// # Errors
    /// [`HostError::Missing`].
    pub fn find(named: Option<&Path>) -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs: Vec<_> = std::env::split_paths(&path)
            .chain(SYSTEM_DIRS.map(PathBuf::from))
            .collect();
        match named {
            Some(named) => Self::find_in(&dirs, named).ok_or_else(|| HostError::Missing {
                program: format!("the OCI runtime {}", named.display()),
                remedy: "name a program, such as /usr/sbin/runc",
            }),
            None => KNOWN
                .iter()
                .find_map(|name| Self::find_in(&dirs, Path::new(name)))
                .ok_or_else(|| HostError::Missing {
                    program: "an OCI runtime (runc, crun or youki)".to_owned(),
                    remedy: "install one, on Debian with `apt install runc`, or name one",
                }),
        }
    }

    fn find_in(dirs: &[PathBuf], named: &Path) -> Option<Self> {
        let is_program = |path: &Path| {
            fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        let candidates = if named.components().count() > 1 {
            // Another process may have to find it again, from another directory.
            vec![std::path::absolute(named).ok()?]
        } else {
            dirs.iter().map(|dir| dir.join(named)).collect()
        };
        let program = candidates.into_iter().find(|path| is_program(path))?;
        Some(Self { program })
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Writes a bundle for the container into the owner's state directory: the spec, with what is not for an OCI
    /// runtime of Linux left out, with sources of binds made absolute, which were relative to `bundle`, and with what only
    /// the mounted root filesystem tells.
    ///
    /// # Errors
    /// The system's.
    pub fn prepare(self, owner: &Owner, id: &str, spec: &Value, bundle: &Path) -> Result<LocalContainer> {
        let own = owner.bundle();
        let write = |path: PathBuf, value: Vec<u8>| {
            fs::write(&path, value).during(|| format!("writing {}", path.display()))
        };
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&own)
            .during(|| format!("making {}", own.display()))?;
        let cgroup = format!("/cofferdam-{}-{id}", owner.tag());
        let mut spec = for_the_runtime(spec, bundle, &cgroup);
        // Its root filesystem is mounted by now, and nothing runs in it.
        cofferdam_rootfs::settle(&mut spec)?;
        let json = |value: io::Result<Vec<u8>>| value.during(|| "writing the container's spec".to_owned());
        let spec = json(serde_json::to_vec_pretty(&spec).map_err(Into::into))?;
        write(own.join("config.json"), spec)?;
        let note = Note {
            program: self.program.clone(),
            id: id.to_owned(),
        };
        write(
            owner.runtime_note(),
            json(serde_json::to_vec(&note).map_err(Into::into))?,
        )?;
        Ok(LocalContainer {
            runtime: self,
            id: id.to_owned(),
            owner: owner.clone(),
        })
    }
}

impl LocalContainer {
    /// The command that runs it in the foreground and ends with its exit status. The streams are the caller's to set.
    #[must_use]
    pub fn run(&self) -> Command {
        let mut command = self.command();
        command
            .arg("run")
            .arg("--bundle")
            .arg(self.owner.bundle())
            .arg(&self.id);
        command
    }

    /// Kills its first process. One that is gone counts as done.
    ///
    /// # Errors
    /// The runtime's words.
    pub fn kill(&self) -> Result<()> {
        self.ask(&["kill", &self.id, "KILL"])
    }

    /// Ends whatever is left of it, and removes what the runtime and [`OciRuntime::prepare`] wrote. Harmless when
    /// repeated.
    ///
    /// # Errors
    /// The runtime's words; the system's.
    pub fn delete(&self) -> Result<()> {
        self.ask(&["delete", "--force", &self.id])?;
        for directory in [self.owner.bundle(), self.owner.runtime_state()] {
            mount_point::remove_tree(&directory)?;
        }
        remove_file(&self.owner.runtime_note())
    }

    /// The container an owner left behind, if it had begun one.
    pub(crate) fn left_by(owner: &Owner) -> Result<Option<Self>> {
        let path = owner.runtime_note();
        let action = || format!("reading {}", path.display());
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.during(action)?,
        };
        match serde_json::from_slice::<Note>(&text) {
            Ok(Note { program, id }) => Ok(Some(Self {
                runtime: OciRuntime { program },
                id,
                owner: owner.clone(),
            })),
            // Cut short by a kill: the runtime had not been started.
            Err(error) if error.is_eof() => Ok(None),
            Err(error) => Err(io::Error::from(error)).during(action),
        }
    }

    /// Its name.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Kills the runtime's own process that its owner left, so that it starts nothing more, and then the container.
    pub(crate) fn end(&self) -> Result<()> {
        // A runtime that its owner had just begun to start is not seen yet; without its spec it gets nowhere.
        remove_file(&self.owner.bundle().join("config.json"))?;
        let state = self.owner.runtime_state();
        if let Some(name) = self.runtime.program.file_name().and_then(|name| name.to_str()) {
            let runs = processes::of_program(name, |words| {
                words.iter().any(|word| *word == *state) && words.iter().any(|word| word == "run")
            })?;
            for run in runs {
                run.end(Duration::ZERO)?;
            }
        }
        self.delete()
    }

    /// Asks the runtime. Where it has no such container, there is nothing to ask.
    fn ask(&self, words: &[&str]) -> Result<()> {
        if !self.owner.runtime_state().join(&self.id).exists() {
            return Ok(());
        }
        let action = || format!("{} {}", self.runtime.program.display(), words.join(" "));
        let output = self
            .command()
            .args(words)
            .stdin(Stdio::null())
            .output()
            .during(action)?;
        if output.status.success() || !self.owner.runtime_state().join(&self.id).exists() {
            return Ok(());
        }
        Err(HostError::Refused {
            action: action(),
            reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.runtime.program);
        command.arg("--root").arg(self.owner.runtime_state());
        command
    }
}

/// `cgroup`: for a container whose spec names none. Runtimes would name it after the container alone, and whoever ends
/// one container would end another one of that name, of another owner, with it.
fn for_the_runtime(spec: &Value, bundle: &Path, cgroup: &str) -> Value {
    let mut spec = spec.clone();
    if let Some(members) = spec.as_object_mut() {
        // Layer folders: they are mounted by now.
        members.remove("windows");
        let linux = members
            .entry("linux")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(linux) = linux.as_object_mut()
            && linux
                .get("cgroupsPath")
                .and_then(Value::as_str)
                .is_none_or(str::is_empty)
        {
            linux.insert("cgroupsPath".to_owned(), cgroup.into());
        }
    }
    let mounts = spec.get_mut("mounts").and_then(Value::as_array_mut);
    for mount in mounts.into_iter().flatten() {
        if is_bind(mount)
            && let Some(source) = mount.get("source").and_then(Value::as_str)
            && let Some(absolute) = bundle.join(source).to_str()
        {
            mount["source"] = absolute.into();
        }
    }
    spec
}

/// Whether a mount's source is a path of the host, which the OCI spec lets be relative to the bundle. `sandbox://` is
/// none.
fn is_bind(mount: &Value) -> bool {
    let is_path = mount
        .get("source")
        .and_then(Value::as_str)
        .is_some_and(|source| !source.contains("://"));
    let options = mount.get("options").and_then(Value::as_array);
    let binds = |option: &Value| matches!(option.as_str(), Some("bind" | "rbind"));
    is_path
        && (mount.get("type").and_then(Value::as_str) == Some("bind")
            || options.is_some_and(|options| options.iter().any(binds)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_runtimes_spec_has_no_layer_folders_and_no_relative_binds() {
        let spec = json!({
            "root": { "path": "/b/rootfs" },
            "windows": { "layerFolders": ["base", "scratch"] },
            "mounts": [
                { "type": "bind", "source": "data", "destination": "/data" },
                { "type": "none", "source": "x/y", "destination": "/y", "options": ["ro", "rbind"] },
                { "type": "bind", "source": "sandbox://z", "destination": "/z" },
                { "type": "tmpfs", "source": "tmpfs", "destination": "/tmp" },
            ],
        });
        let rewritten = for_the_runtime(&spec, Path::new("/b"), "/ours");
        let sources: Vec<_> = rewritten["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| mount["source"].as_str().unwrap())
            .collect();
        assert_eq!(sources, ["/b/data", "/b/x/y", "sandbox://z", "tmpfs"]);
        assert_eq!(rewritten.get("windows"), None);
        assert_eq!(rewritten["root"], spec["root"]);
    }

    #[test]
    fn a_container_has_a_cgroup_that_is_its_owners_unless_its_spec_names_one() {
        let cgroup =
            |spec: Value| for_the_runtime(&spec, Path::new("/b"), "/ours")["linux"]["cgroupsPath"].clone();
        assert_eq!(cgroup(json!({})), "/ours");
        assert_eq!(cgroup(json!({ "linux": { "cgroupsPath": "" } })), "/ours");
        assert_eq!(
            cgroup(json!({ "linux": { "cgroupsPath": "/theirs" } })),
            "/theirs"
        );
    }

    #[test]
    fn a_runtime_that_is_not_there_is_named_with_what_to_do() {
        let error = OciRuntime::find(Some(Path::new("/nonexistent/runc"))).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the OCI runtime /nonexistent/runc was not found: "),
            "{error}"
        );
        assert_eq!(OciRuntime::find_in(&[], Path::new("runc")), None);
    }

    #[test]
    fn a_file_that_cannot_be_executed_is_no_runtime() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned()];
        let program = dir.path().join("runc");
        fs::write(&program, "").unwrap();
        assert_eq!(OciRuntime::find_in(&dirs, Path::new("runc")), None);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(
            OciRuntime::find_in(&dirs, Path::new("runc")),
            Some(OciRuntime { program })
        );
    }
}
