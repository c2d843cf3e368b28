//! Bundles whose layers are made here, of the host's own shell.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::bundle::{copy_programs, output_of, succeed};

/// Programs in the base layer.
const PROGRAMS: [&str; 5] = ["/bin/sh", "/bin/cat", "/bin/sleep", "/bin/stty", "/bin/mount"];

/// The container's name.
pub(crate) const ID: &str = "c1";

/// A bundle in a directory of its own, with the records of who owns what beside it.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
    records: tempfile::TempDir,
    pub(crate) spec: Value,
}

impl Scene {
    /// A container that runs a script.
    pub(crate) fn new(script: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "process isolation needs root: run the process ring as root"
        );
        let mount = |destination: &str, kind: &str| json!({ "destination": destination, "type": kind, "source": kind });
        let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
        let spec = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "cwd": "/",
                "env": ["PATH=/bin"],
                "args": ["/bin/sh", "-c", script],
            },
            "windows": { "layerFolders": ["upper", "base", "scratch"] },
            "mounts": [
                mount("/proc", "proc"),
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] },
            ],
            "linux": { "namespaces": namespaces },
        });
        let scene = Self {
            dir: tempfile::tempdir().unwrap(),
            records: tempfile::tempdir().unwrap(),
            spec,
        };
        let fixed = ["-o", "subformat=fixed,force_size=on"];
        scene.image("base/layer.vhd", &base_layer(), "vpc", &fixed);
        let upper = tempfile::tempdir().unwrap();
        fs::write(upper.path().join("upper"), "from the upper layer\n").unwrap();
        scene.image("upper/layer.vhd", upper.path(), "vpc", &fixed);
        let empty = tempfile::tempdir().unwrap();
        scene.image("scratch/sandbox.vhdx", empty.path(), "vhdx", &[]);
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the owner of its container is recorded.
    pub(crate) fn state(&self) -> PathBuf {
        self.records.path().join(ID)
    }

    pub(crate) fn mount(&mut self, entry: Value) {
        self.spec["mounts"].as_array_mut().unwrap().push(entry);
    }

    /// An ext4 image of a directory.
    pub(crate) fn image(&self, name: &str, content: &Path, format: &str, options: &[&str]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let raw = self.path("raw");
        let _ = fs::remove_file(&raw);
        succeed(
            Command::new("mke2fs")
                .args(["-q", "-t", "ext4", "-F", "-d"])
                .arg(content)
                .arg(&raw)
                .arg("16M"),
        );
        succeed(
            Command::new("qemu-img")
                .args(["convert", "-O", format])
                .args(options)
                .arg(&raw)
                .arg(&path),
        );
        fs::remove_file(raw).unwrap();
    }

    /// The command that runs it, spec written.
    pub(crate) fn command(&self) -> Command {
        self.command_at(self.records.path())
    }

    /// The same with its owner recorded in another directory.
    pub(crate) fn command_at(&self, records: &Path) -> Command {
        fs::write(
            self.path("config.json"),
            serde_json::to_vec_pretty(&self.spec).unwrap(),
        )
        .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command
            .args(["run", "--no-vm", "--root"])
            .arg(records)
            .arg("--bundle")
            .arg(self.dir.path())
            .arg(ID)
            .stdin(Stdio::null());
        command
    }

    /// The command that clears up after owners that are gone.
    pub(crate) fn repair(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command
            .args(["fsck", "--repair", "--root"])
            .arg(self.records.path());
        command
    }

    /// Runs it to its end, and sees that nothing is left of it.
    #[track_caller]
    pub(crate) fn run(&self) -> Output {
        let output = self.command().output().unwrap();
        self.assert_nothing_left();
        output
    }

    /// Starts it, and returns once it has said that it is ready.
    pub(crate) fn started(&self) -> Running {
        let mut child = self.command().stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"ready\n");
        Running(child)
    }

    /// Everything of it that the system still has.
    pub(crate) fn left(&self) -> Vec<String> {
        let ours = |text: &str| {
            let mut dirs = [&self.dir, &self.records].into_iter();
            dirs.any(|dir| text.contains(dir.path().to_str().unwrap()))
        };
        let mut left: Vec<String> = fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .filter(|line| ours(line))
            .map(|line| format!("mount: {line}"))
            .collect();
        for entry in fs::read_dir("/sys/block").unwrap().flatten() {
            let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            if ours(&file) {
                left.push(format!("{}: {file}", entry.path().display()));
            }
        }
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if ours(&line) {
                left.push(format!("process: {line}"));
            }
        }
        left
    }

    /// Fails unless nothing is left: for the system, in the bundle, and of the record.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.left(), Vec::<String>::new());
        assert!(!self.path("rootfs").exists());
        assert!(self.path("scratch/sandbox.vhdx").exists());
        assert!(!self.state().exists());
    }
}

/// A run of the command. One that a test gives up is killed, or the test's runner would wait for its output's end.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn signal(&self, name: &str) {
        let number = self.0.id().to_string();
        succeed(Command::new("kill").arg(format!("-{name}")).arg(number));
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Its exit status, once it has ended.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "not ended within a minute"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, but for a test that failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Scene {
    /// A test that failed half way must not leave its mounts to the removal of its directory.
    fn drop(&mut self) {
        if !self.left().is_empty() {
            eprintln!("left by the test: {:?}", self.repair().output());
        }
    }
}

/// A directory with the host's shell, a few programs, and the libraries they need.
fn base_layer() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("local-base-{}", std::process::id()));
    static MADE: std::sync::Once = std::sync::Once::new();
    MADE.call_once(|| {
        copy_programs(&dir, &PROGRAMS);
        for name in ["dev", "proc"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
    });
    dir
}

/// Standard error of a run that cofferdam itself refused.
#[track_caller]
pub(crate) fn refusal_of(run: &Output) -> String {
    output_of(run, 125);
    String::from_utf8_lossy(&run.stderr).into_owned()
}
