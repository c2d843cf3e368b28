//! Bundles on disk with tiny real images, and runs of the program on them that are held to touching nothing.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

/// A directory with bundles, layers and images.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
}

/// What one run said.
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    fn of(output: Output) -> Self {
        Self {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Standard output of a run that went well and had nothing to complain of.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        assert_eq!(
            (self.status, self.stderr.as_str()),
            (Some(0), ""),
            "{}",
            self.stdout
        );
        &self.stdout
    }

    /// The same, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap()
    }

    /// The message of a refusal: exit status 1, nothing on standard output.
    #[track_caller]
    pub(crate) fn refusal(&self) -> &str {
        assert_eq!(
            (self.status, self.stdout.as_str()),
            (Some(1), ""),
            "{}",
            self.stderr
        );
        let message = self.stderr.strip_prefix("cofferdam: ");
        message.expect("a message on standard error").trim_end()
    }

    /// The `error` member of a refusal with `--format json`, whose message is also on standard error.
    #[track_caller]
    pub(crate) fn json_refusal(&self) -> Value {
        assert_eq!(self.status, Some(1), "{}{}", self.stdout, self.stderr);
        let mut document: Value = serde_json::from_str(&self.stdout).unwrap();
        let error = document["error"].take();
        assert_eq!(document, json!({"error": null}), "nothing but the error");
        assert_eq!(
            self.stderr,
            format!("cofferdam: {}\n", error["message"].as_str().unwrap())
        );
        error
    }
}

impl Scene {
    /// Two layers and a scratch in `l`, a bundle `b` that uses them, a directory `srv` with two files.
    pub(crate) fn new() -> Self {
        let scene = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for folder in ["l/1", "l/2", "l/s", "b", "srv"] {
            fs::create_dir_all(scene.path(folder)).unwrap();
        }
        scene.image("l/1/layer.vhd", "vpc");
        scene.image("l/2/layer.vhd", "vpc");
        scene.image("l/s/sandbox.vhdx", "vhdx");
        for file in ["srv/one", "srv/two"] {
            fs::write(scene.path(file), "content").unwrap();
        }
        scene
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// An image with an empty ext4, in a format of qemu-img.
    pub(crate) fn image(&self, name: &str, format: &str) -> PathBuf {
        let (raw, image) = (self.path("raw.ext4"), self.path(name));
        fs::File::create(&raw).unwrap().set_len(1 << 20).unwrap();
        succeed(
            Command::new("mke2fs")
                .args(["-q", "-t", "ext4", "-O", "^has_journal", "-F"])
                .arg(&raw),
        );
        let options: &[&str] = match format {
            "vpc" => &["-o", "subformat=fixed,force_size=on"],
            _ => &[],
        };
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-O", format]).args(options);
        succeed(convert.args([&raw, &image]));
        fs::remove_file(raw).unwrap();
        image
    }

    /// Writes a bundle's config.json.
    pub(crate) fn bundle(&self, name: &str, spec: &Value) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.json"), serde_json::to_vec_pretty(spec).unwrap()).unwrap();
        dir
    }

    /// Runs `cofferdam plan` in the scene's directory.
    pub(crate) fn plan(&self, arguments: &[&str]) -> Said {
        self.run(self.command(arguments))
    }

    /// The command of [`Scene::plan`]. Nothing can be started from it: no program is found.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command
            .arg("plan")
            .args(arguments)
            .current_dir(self.root())
            .env_clear()
            .env("PATH", "/nonexistent")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of [`Scene::command`], and holds it to leaving every file as it is.
    pub(crate) fn run(&self, mut command: Command) -> Said {
        let before = self.files();
        let said = Said::of(command.output().unwrap());
        assert_eq!(self.files(), before, "something was touched");
        said
    }

    /// Every file and directory with what would change if it were touched.
    fn files(&self) -> BTreeMap<PathBuf, (u64, u64, u32, i64, i64, i64)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.root().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let facts = fs::symlink_metadata(&path).unwrap();
                if facts.is_dir() {
                    folders.push(path.clone());
                }
                let times = (facts.mtime(), facts.mtime_nsec(), facts.ctime_nsec());
                found.insert(
                    path,
                    (facts.ino(), facts.len(), facts.mode(), times.0, times.1, times.2),
                );
            }
        }
        found
    }
}

/// A mount entry.
pub(crate) fn mount(kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": "/m", "type": kind, "source": source, "options": options})
}

/// A spec with the scene's layers, seen from a bundle beside them.
pub(crate) fn layered(mounts: Value) -> Value {
    json!({"ociVersion": "1.0.2", "mounts": mounts, "windows": {"layerFolders": ["../l/2", "../l/1", "../l/s"]}})
}

/// A spec with a directory as its root.
pub(crate) fn rooted(mounts: Value) -> Value {
    json!({"root": {"path": "../srv", "readonly": true}, "mounts": mounts})
}

/// Runs a tool that must succeed.
pub(crate) fn succeed(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run `cargo xtask setup`"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
