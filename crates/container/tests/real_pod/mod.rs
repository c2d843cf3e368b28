//! A real VM under QEMU, and containers for it.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each target uses a part of it, and a test may panic"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use cofferdam_backend::Backend;
use cofferdam_container::{Allocation, Created, Stdio, delete_state, facts, left_behind};
use cofferdam_image::probe;
use cofferdam_plan::{Plan, PlanRequest, Spec, plan, wanted};
use cofferdam_qemu::{QemuBackend, QemuConfig};
use cofferdam_vm::{BootOptions, UtilityVm};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

/// A directory given by the runner of the tests.
pub(crate) fn required(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable);
    PathBuf::from(value.unwrap_or_else(|| panic!("{variable} is not set: run `cargo xtask test vm`")))
}

/// A VM that has booted, and files for its containers.
pub(crate) struct Pod {
    pub(crate) backend: Arc<QemuBackend>,
    pub(crate) vm: Arc<UtilityVm>,
    dir: tempfile::TempDir,
}

impl Pod {
    /// Boots a VM of the default size with the kernel of the test runner.
    pub(crate) async fn boot() -> Self {
        Self::boot_with(|_| ()).await
    }

    /// The same with something changed.
    pub(crate) async fn boot_with(change: impl FnOnce(&mut QemuConfig)) -> Self {
        let boot = required("COFFERDAM_BOOT_DIR");
        let mut config = QemuConfig::new(boot.join("kernel"), boot.join("initramfs.cpio"));
        change(&mut config);
        let backend = Arc::new(QemuBackend::new(config).unwrap());
        let vm = UtilityVm::boot(backend.clone(), &BootOptions::default())
            .await
            .unwrap();
        Self {
            backend,
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

    /// A qcow2 image with an empty ext4 of 8 MiB.
    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        let (raw, image) = (self.path("raw.ext4"), self.path(name));
        fs::File::create(&raw).unwrap().set_len(8 << 20).unwrap();
        let format = ["-q", "-t", "ext4", "-O", "^has_journal", "-F"];
        succeed(Command::new("mke2fs").args(format).arg(&raw));
        let convert = ["convert", "-O", "qcow2"];
        succeed(Command::new("qemu-img").args(convert).args([&raw, &image]));
        fs::remove_file(raw).unwrap();
        image
    }

    /// A container that runs a script on the two test layers, with a scratch of this name that is made when it is
    /// not there.
    pub(crate) fn layered(&self, scratch: &str, script: &str, mounts: &[Value]) -> Value {
        let layers = required("COFFERDAM_TEST_LAYERS");
        let folder = self.path(scratch);
        if !folder.exists() {
            fs::create_dir(&folder).unwrap();
            let image = "sandbox.vhdx";
            fs::copy(layers.join("scratch").join(image), folder.join(image)).unwrap();
        }
        let own = |destination: &str, kind: &str| json!({ "destination": destination, "type": kind, "source": kind });
        let mut all = vec![own("/proc", "proc"), own("/dev", "tmpfs"), own("/tmp", "tmpfs")];
        all.extend_from_slice(mounts);
        // Not CAP_SYS_ADMIN: with it a container could make its own view of a disk writable that another one writes to.
        let capabilities = ["CAP_DAC_OVERRIDE"];
        let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "cwd": "/",
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"],
                "args": ["/bin/bash", "-c", script],
                "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            },
            "mounts": all,
            "windows": { "layerFolders": [layers.join("upper"), layers.join("base"), folder] },
            "linux": { "namespaces": namespaces },
        })
    }

    /// The plan of a spec, at a container root of its own.
    pub(crate) fn plan(&self, spec: &Value) -> Plan {
        let spec = Spec::parse(&spec.to_string()).unwrap();
        let check = |path: &Path| match probe(path) {
            Ok(facts) => facts.problem.map_or(Ok(()), Err),
            Err(error) => Err(error.to_string()),
        };
        let found = facts::gather(wanted(&spec, self.dir.path()), &check);
        let request = PlanRequest {
            spec: &spec,
            bundle: self.dir.path(),
            container_root: &self.vm.new_container_root(),
            process_isolation: false,
        };
        plan(request, &found).unwrap()
    }

    /// Runs a container from its allocation to its release, and returns its output. It must end with status 0.
    pub(crate) async fn run(&self, id: &str, spec: &Value) -> String {
        let plan = self.plan(spec);
        let mut allocation = Allocation::allocate(self.vm.driver(), &plan).await.unwrap();
        let output = self.run_in(id, &plan).await;
        allocation.release().await.unwrap();
        delete_state(&self.vm, id).await.unwrap();
        output
    }

    /// Runs a container whose plan has been allocated.
    pub(crate) async fn run_in(&self, id: &str, plan: &Plan) -> String {
        let created = Created::create(self.vm.clone(), id, &plan.container_root, &plan.spec)
            .await
            .unwrap();
        let (write, mut read) = tokio::io::duplex(1 << 20);
        let (write_errors, mut read_errors) = tokio::io::duplex(1 << 20);
        let stdio = Stdio {
            stdin: None,
            stdout: Some(Box::new(write)),
            stderr: Some(Box::new(write_errors)),
        };
        let running = created.start(stdio, None).await.unwrap();
        let status = running.wait().await.unwrap();
        let (mut output, mut errors) = (String::new(), String::new());
        read.read_to_string(&mut output).await.unwrap();
        read_errors.read_to_string(&mut errors).await.unwrap();
        assert_eq!(status, 0, "{id}: {output}\n{errors}");
        output
    }

    /// Ledger, QEMU's own list of devices and the guest's mount table are empty.
    pub(crate) async fn assert_empty(&self, when: &str) {
        let view = self.vm.driver().ledger().view();
        assert!(view.slots.is_empty(), "{when}: {:?}", view.slots);
        let devices = self.backend.devices().await.unwrap();
        assert!(devices.is_empty(), "{when}: {devices:?}");
        let mounts = self.vm.bridge().guest_mounts().await.unwrap();
        assert!(mounts.is_empty(), "{when}: {mounts:?}");
        assert_eq!(left_behind(&self.vm).await.unwrap(), [""; 0], "{when}");
    }

    /// Powers the VM off.
    pub(crate) async fn shut_down(self) {
        self.vm.shut_down().await.unwrap();
    }
}

/// A mount entry.
pub(crate) fn mount(kind: &str, source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({ "type": kind, "source": source, "destination": destination, "options": options })
}

/// Runs a tool that must succeed, and gives what it says.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run `cargo xtask setup`"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
