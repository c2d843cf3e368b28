//! A real utility VM, and containers in it that do line by line what they are told.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use cofferdam_backend::Backend;
use cofferdam_container::{
    Allocation, Created, Handle, HotMountError, Mounted, Stdio, delete_state, facts, left_behind,
};
use cofferdam_plan::{Mount, PlanRequest, Spec, plan, wanted};
use cofferdam_qemu::{QemuBackend, QemuConfig};
use cofferdam_vm::{BootOptions, UtilityVm};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream},
    task::JoinHandle,
};

/// No single line takes longer, or the container stands still. Generous: the VM may be emulated on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// What ends the answer to a line: no command of a test prints it.
const END: &str = "\u{4}";

/// A directory given by the runner of the tests.
fn required(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable);
    PathBuf::from(value.unwrap_or_else(|| panic!("{variable} is not set: run `cargo xtask test vm`")))
}

/// A VM that has booted, and files for its containers.
pub(crate) struct Pod {
    pub(crate) vm: Arc<UtilityVm>,
    dir: tempfile::TempDir,
}

impl Pod {
    pub(crate) async fn boot() -> Self {
        let boot = required("COFFERDAM_BOOT_DIR");
        let config = QemuConfig::new(boot.join("kernel"), boot.join("initramfs.cpio"));
        let backend: Arc<dyn Backend> = Arc::new(QemuBackend::new(config).unwrap());
        let vm = match UtilityVm::boot(backend, &BootOptions::default()).await {
            Ok(vm) => vm,
            Err(error) => panic!("{error}"),
        };
        Self {
            vm,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory with these files.
    pub(crate) fn directory(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir(&dir).unwrap();
        for (file, content) in files {
            fs::write(dir.join(file), content).unwrap();
        }
        dir
    }

    /// A raw image with an ext4 of 16 MiB that holds one file, `f`.
    pub(crate) fn disk(&self, name: &str, content: &str) -> PathBuf {
        let tree = self.directory(&format!("{name}.tree"), &[("f", content)]);
        let image = self.path(name);
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        succeed(
            Command::new("mke2fs")
                .args(["-q", "-t", "ext4", "-F", "-d"])
                .args([&tree, &image]),
        );
        image
    }

    /// What a disk's file holds as `name`, once nobody has it.
    pub(crate) fn on_disk(&self, image: &Path, name: &str) -> String {
        let command = format!("cat /{name}");
        let output = succeed(Command::new("debugfs").args(["-R", &command]).arg(image));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A container with the test layers that waits for lines.
    pub(crate) async fn container(&self, name: &'static str) -> Container {
        self.container_with(name, &[]).await
    }

    /// The same with these capabilities too.
    pub(crate) async fn container_with(&self, name: &'static str, further: &[&str]) -> Container {
        let layers = required("COFFERDAM_TEST_LAYERS");
        let scratch = self.directory(&format!("{name}.scratch"), &[]);
        fs::copy(layers.join("scratch/sandbox.vhdx"), scratch.join("sandbox.vhdx")).unwrap();
        let capabilities: Vec<&str> = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL"]
            .iter()
            .chain(further)
            .copied()
            .collect();
        let mount = |destination: &str, kind: &str| json!({ "destination": destination, "type": kind, "source": kind });
        let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
        let script =
            format!("while IFS= read -r line; do eval \"$line\" 2>&1; printf '\\n%s{END}\\n' $?; done");
        let spec = json!({
            "ociVersion": "1.0.2",
            "process": {
                "cwd": "/",
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"],
                "args": ["/bin/bash", "-c", script],
                "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            },
            "windows": { "layerFolders": [layers.join("upper"), layers.join("base"), scratch] },
            "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs"), mount("/sys", "sysfs"), mount("/tmp", "tmpfs")],
            "linux": { "namespaces": namespaces },
        });
        let spec = Spec::parse(&spec.to_string()).unwrap();
        let found = facts::gather(wanted(&spec, self.dir.path()), &|_| Ok(()));
        let request = PlanRequest {
            spec: &spec,
            bundle: self.dir.path(),
            container_root: &self.vm.new_container_root(),
            process_isolation: false,
        };
        let plan = plan(request, &found).unwrap();
        let allocation = Allocation::allocate(self.vm.driver(), &plan).await.unwrap();
        let created = Created::create(self.vm.clone(), name, &plan.container_root, &plan.spec)
            .await
            .unwrap();
        let (input, stdin) = tokio::io::duplex(64 << 10);
        let (stdout, output) = tokio::io::duplex(64 << 10);
        let stdio = Stdio {
            stdin: Some(Box::new(stdin)),
            stdout: Some(Box::new(stdout)),
            stderr: None,
        };
        let running = created.start(stdio, None).await.unwrap();
        Container {
            name,
            base: self.dir.path().to_owned(),
            allocation,
            handle: running.handle(),
            input,
            output: BufReader::new(output),
            ended: tokio::spawn(async move { running.wait().await.unwrap() }),
        }
    }

    /// Everything that is mounted in the VM for containers, as its kernel lists it.
    pub(crate) async fn mounts(&self) -> Vec<String> {
        let mounts = self.vm.bridge().guest_mounts().await.unwrap();
        assert_eq!(mounts.omitted, 0);
        mounts.listed.into_iter().map(|mount| mount.path).collect()
    }

    /// Ends the VM, in which nothing is left.
    pub(crate) async fn end(self) {
        assert_eq!(self.mounts().await, [""; 0], "mounts of the VM");
        assert_eq!(left_behind(&self.vm).await.unwrap(), [""; 0]);
        self.vm.shut_down().await.unwrap();
    }
}

/// A container that runs.
pub(crate) struct Container {
    name: &'static str,
    base: PathBuf,
    pub(crate) allocation: Allocation,
    handle: Handle,
    input: DuplexStream,
    output: BufReader<DuplexStream>,
    ended: JoinHandle<u8>,
}

impl Container {
    /// What its process, which has run since before, prints for a line, with the line's status.
    pub(crate) async fn says(&mut self, line: &str) -> (String, i32) {
        let answer = async {
            self.input
                .write_all(format!("{line}\n").as_bytes())
                .await
                .unwrap();
            let mut answer = Vec::new();
            self.output
                .read_until(END.as_bytes()[0], &mut answer)
                .await
                .unwrap();
            let mut rest = String::new();
            self.output.read_line(&mut rest).await.unwrap();
            String::from_utf8(answer).unwrap()
        };
        let answer = tokio::time::timeout(LIMIT, answer).await;
        let answer = answer.unwrap_or_else(|_| panic!("{}: no answer to {line:?}", self.name));
        let answer = answer.trim_end_matches(END);
        let (text, status) = answer.rsplit_once('\n').unwrap_or(("", answer));
        let text = text.strip_suffix('\n').unwrap_or(text);
        (text.to_owned(), status.parse().unwrap())
    }

    /// The same for a line that must succeed.
    #[track_caller]
    pub(crate) fn prints(&mut self, line: &str) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let (text, status) = self.says(line).await;
            assert_eq!(status, 0, "{caller}: {line}: {text}");
            text
        }
    }

    pub(crate) async fn add(
        &self,
        kind: &str,
        source: &str,
        destination: &str,
        options: &[&str],
    ) -> Result<Mounted, HotMountError> {
        let mount = Mount {
            destination: destination.to_owned(),
            kind: Some(kind.to_owned()),
            source: Some(source.to_owned()),
            options: Some(options.iter().map(|option| (*option).to_owned()).collect()),
        };
        let mounts = self.allocation.mounts();
        let plan = mounts.plan(&mount, &self.base, &|_| Ok(())).unwrap();
        mounts.add(self.name, &plan).await
    }

    pub(crate) async fn remove(&self, destination: &str) -> Result<(), HotMountError> {
        self.allocation.mounts().remove(destination).await
    }

    /// Ends it; whatever it held is given back.
    pub(crate) async fn end(mut self, pod: &Pod) {
        drop(self.input);
        self.handle.signal(9).await.unwrap();
        (&mut self.ended).await.unwrap();
        self.allocation.release().await.unwrap();
        delete_state(&pod.vm, self.name).await.unwrap();
    }
}

/// Runs a tool that must succeed.
fn succeed(command: &mut Command) -> std::process::Output {
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
