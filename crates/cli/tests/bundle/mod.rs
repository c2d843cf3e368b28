//! Bundles for the tests in a VM, and the program that runs them.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test target uses a part of it, and a test may panic"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

/// A directory given by the runner of the tests.
pub(crate) fn required(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable);
    PathBuf::from(value.unwrap_or_else(|| panic!("{variable} is not set: run `cargo xtask test vm`")))
}

/// A bundle in a directory of its own, removed with it.
pub(crate) struct Bundle {
    dir: tempfile::TempDir,
    spec: Value,
}

impl Bundle {
    /// A container with the test layers that runs a script.
    pub(crate) fn with_layers(script: &str) -> Self {
        let bundle = Self::bare(script);
        let layers = required("COFFERDAM_TEST_LAYERS");
        let scratch = bundle.path("scratch");
        fs::create_dir(&scratch).unwrap();
        fs::copy(layers.join("scratch/sandbox.vhdx"), scratch.join("sandbox.vhdx")).unwrap();
        bundle.set(
            "windows",
            json!({ "layerFolders": [layers.join("upper"), layers.join("base"), scratch] }),
        )
    }

    /// A container without a root filesystem that runs a script.
    pub(crate) fn bare(script: &str) -> Self {
        let capabilities = [
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_KILL",
            "CAP_MKNOD",
        ];
        let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
        let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
        let spec = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "cwd": "/",
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"],
                "args": ["/bin/bash", "-c", script],
                "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            },
            "mounts": [
                mount("/proc", "proc", &[]),
                mount("/dev", "tmpfs", &["mode=755"]),
                mount("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666"]),
                mount("/tmp", "tmpfs", &[]),
            ],
            "linux": { "namespaces": namespaces },
        });
        Self {
            dir: tempfile::tempdir().unwrap(),
            spec,
        }
    }

    /// A path in the bundle's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same with a member of the spec set.
    pub(crate) fn set(mut self, member: &str, value: Value) -> Self {
        self.spec[member] = value;
        self
    }

    /// The same with a process whose capabilities the spec does not name.
    pub(crate) fn without_capabilities(mut self) -> Self {
        let process = self.spec["process"].as_object_mut().unwrap();
        process.remove("capabilities");
        self
    }

    /// The same with other arguments for the process.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.spec["process"]["args"] = json!(args);
        self
    }

    /// The same with one more mount.
    pub(crate) fn mount(
        mut self,
        kind: &str,
        source: impl AsRef<Path>,
        destination: &str,
        options: &[&str],
    ) -> Self {
        let source = source.as_ref().to_str().unwrap();
        let entry = json!({ "type": kind, "source": source, "destination": destination, "options": options });
        self.spec["mounts"].as_array_mut().unwrap().push(entry);
        self
    }

    /// A directory of the bundle with these files.
    pub(crate) fn directory(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir(&dir).unwrap();
        for (file, content) in files {
            fs::write(dir.join(file), content).unwrap();
        }
        dir
    }

    /// An image with an empty ext4 of 16 MiB, in a format of qemu-img with its options.
    pub(crate) fn disk(&self, name: &str, format: &str, options: &[&str]) -> PathBuf {
        let raw = self.path(&format!("{name}.ext4"));
        fs::File::create(&raw).unwrap().set_len(16 << 20).unwrap();
        succeed(Command::new("mke2fs").args(["-q", "-t", "ext4", "-F"]).arg(&raw));
        if format == "raw" {
            return raw;
        }
        let image = self.path(name);
        succeed(
            Command::new("qemu-img")
                .args(["convert", "-O", format])
                .args(options)
                .arg(&raw)
                .arg(&image),
        );
        fs::remove_file(raw).unwrap();
        image
    }

    /// The command that runs it, spec written.
    pub(crate) fn command(&self) -> Command {
        self.command_of("run")
    }

    /// The command `run`, or another one that takes what it takes; its spec is written.
    pub(crate) fn command_of(&self, subcommand: &str) -> Command {
        fs::write(
            self.path("config.json"),
            serde_json::to_vec_pretty(&self.spec).unwrap(),
        )
        .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command
            .arg(subcommand)
            .arg("--bundle")
            .arg(self.dir.path())
            .arg("--boot-dir")
            .arg(required("COFFERDAM_BOOT_DIR"));
        command.stdin(Stdio::null());
        command
    }

    /// The command that runs it on the host itself, spec written.
    pub(crate) fn command_without_vm(&self) -> Command {
        self.command();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command
            .args(["run", "--no-vm", "--bundle"])
            .arg(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Output {
        self.command().output().unwrap()
    }
}

/// Runs a tool that must succeed.
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run `cargo xtask setup`"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Standard output of a run that must have ended with this status.
#[track_caller]
pub(crate) fn output_of(run: &Output, status: i32) -> String {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (shown(&run.stdout), shown(&run.stderr));
    assert_eq!(
        run.status.code(),
        Some(status),
        "stdout:\n{stdout}\nstderr:\n{stderr}"
    );
    stdout
}

/// Copies programs of this host, and the libraries they need, to where they are below `dir`.
pub(crate) fn copy_programs(dir: &Path, programs: &[&str]) {
    let copy = |path: &str| {
        let to = dir.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    };
    for program in programs {
        copy(program);
        let needed = succeed(Command::new("ldd").arg(program)).stdout;
        for word in String::from_utf8(needed).unwrap().split_whitespace() {
            if word.starts_with('/') {
                copy(word);
            }
        }
    }
}
