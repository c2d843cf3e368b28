//! A store with an image of the host's own shell, and the command that runs it.

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

use crate::bundle::{copy_programs, required, succeed};

/// Programs of the image.
const PROGRAMS: [&str; 6] = [
    "/bin/sh",
    "/bin/cat",
    "/bin/sleep",
    "/usr/bin/id",
    "/usr/bin/env",
    "/bin/hostname",
];

/// The image's name.
pub(crate) const IMAGE: &str = "shell:1";

/// Where the image is run.
#[derive(Clone, Copy)]
enum Place {
    Vm,
    Host,
}

/// A store with [`IMAGE`] in it, and the records of who owns what beside it.
pub(crate) struct Picture {
    dir: tempfile::TempDir,
    place: Place,
}

impl Picture {
    /// An image that is run in VMs.
    pub(crate) fn in_vm(config: Value) -> Self {
        Self::new(config, Place::Vm)
    }

    /// An image that is run on this host.
    pub(crate) fn on_host(config: Value) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "process isolation needs root: run the process ring as root"
        );
        Self::new(config, Place::Host)
    }

    /// With this configuration besides the usual one: a shell that runs `CMD` of the image, or of the user.
    fn new(config: Value, place: Place) -> Self {
        let picture = Self {
            dir: tempfile::tempdir().unwrap(),
            place,
        };
        let base = picture.path("base");
        fill(&base);
        let top = picture.path("top");
        fs::create_dir_all(top.join("srv/data")).unwrap();
        fs::write(top.join("srv/data/given"), "by the image\n").unwrap();
        fs::write(top.join("srv/plain"), "no program\n").unwrap();
        let mut members = json!({
            "Env": ["PATH=/bin:/usr/bin", "FROM=image"],
            "Cmd": ["/bin/sh", "-c", "echo from the image; cat /srv/data/given"],
            "WorkingDir": "/srv",
        });
        for (name, value) in config.as_object().unwrap() {
            members[name] = value.clone();
        }
        picture.import(&[base, top], members);
        picture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What `docker save` would write of layers, the base first.
    fn import(&self, layers: &[PathBuf], config: Value) {
        let archive = self.path("archive");
        fs::create_dir(&archive).unwrap();
        let (mut names, mut digests) = (Vec::new(), Vec::new());
        for (number, layer) in layers.iter().enumerate() {
            let name = format!("{number}.tar");
            succeed(
                Command::new("tar")
                    .args(["--owner=0", "--group=0", "--numeric-owner", "-cf"])
                    .arg(archive.join(&name))
                    .arg("-C")
                    .arg(layer)
                    .arg("."),
            );
            let sum = succeed(Command::new("sha256sum").arg(archive.join(&name))).stdout;
            let digest = String::from_utf8(sum).unwrap();
            digests.push(format!("sha256:{}", digest.split_whitespace().next().unwrap()));
            names.push(name);
        }
        let document = json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": { "type": "layers", "diff_ids": digests },
        });
        fs::write(archive.join("config.json"), document.to_string()).unwrap();
        let manifest = json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": names }]);
        fs::write(archive.join("manifest.json"), manifest.to_string()).unwrap();
        let file = self.path("image.tar");
        succeed(
            Command::new("tar")
                .arg("-cf")
                .arg(&file)
                .arg("-C")
                .arg(&archive)
                .arg("."),
        );
        let mut import = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        succeed(
            import
                .args(["image", "import", "--quiet", "--store"])
                .arg(self.store())
                .arg(file),
        );
    }

    /// The same image again, under another name, with its layers made in another way. Gives their folders, base first.
    pub(crate) fn again(&self, name: &str, options: &[&str]) -> Vec<PathBuf> {
        let store = self.store();
        let mut import = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        import.args(["image", "import", "--quiet", "--store"]).arg(&store);
        succeed(import.args(options).arg(self.path("image.tar")).arg(name));
        let mut inspect = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        let told = succeed(inspect.args(["image", "inspect", name, "--store"]).arg(&store)).stdout;
        let told: Value = serde_json::from_slice(&told).unwrap();
        let folders = told["layers"].as_array().unwrap().iter();
        folders
            .map(|layer| PathBuf::from(layer["folder"].as_str().unwrap()))
            .collect()
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.path("records")
    }

    /// `cofferdam run` with options; the image and its command are the caller's to add.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command
            .args(["run", "--root"])
            .arg(self.records())
            .arg("--store")
            .arg(self.store())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        match self.place {
            Place::Vm => command.arg("--boot-dir").arg(required("COFFERDAM_BOOT_DIR")),
            Place::Host => command.arg("--no-vm"),
        };
        command
    }

    /// Runs it with these words, options and image, to its end, and sees that nothing is left of it.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        let output = self.command().args(words).output().unwrap();
        assert_eq!(self.left(), Vec::<String>::new());
        output
    }

    /// The same for a script of the shell.
    #[track_caller]
    pub(crate) fn script(&self, options: &[&str], script: &str) -> Output {
        let words = [options, &[IMAGE, "/bin/sh", "-c", script]].concat();
        self.run(&words)
    }

    /// The command that clears up after owners that are gone.
    pub(crate) fn repair(&self) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command.args(["fsck", "--repair", "--root"]).arg(self.records());
        command.output().unwrap()
    }

    /// What is left of containers: records, bundles, mounts, loop devices.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for dir in [self.records(), self.store().join("containers")] {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        let ours = self.dir.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(ours))
                .map(str::to_owned),
        );
        for entry in fs::read_dir("/sys/block").unwrap().flatten() {
            let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            left.extend(file.contains(ours).then_some(file));
        }
        left
    }
}

/// What was written to standard error.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Drop for Picture {
    /// A test that failed half way must not leave its mounts to the removal of its directory.
    fn drop(&mut self) {
        if !self.left().is_empty() {
            eprintln!("left by the test: {:?}", self.repair());
        }
    }
}

/// A root filesystem with the host's shell, a few programs, the libraries they need, and two users.
fn fill(dir: &Path) {
    copy_programs(dir, &PROGRAMS);
    for name in ["dev", "proc", "sys", "etc", "tmp"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    fs::write(
        dir.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:Web:/var/www:/bin/sh\n",
    )
    .unwrap();
    fs::write(dir.join("etc/group"), "root:x:0:\nadm:x:4:web\nwww:x:34:\n").unwrap();
}
