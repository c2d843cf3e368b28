//! A directory with images, an owner's state and a bundle in it; and what the system says of it afterwards.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use cofferdam_backend::{Backend, BackendError};
use cofferdam_container::{AllocateError, Allocation, facts};
use cofferdam_host::{LocalHost, Owner};
use cofferdam_journal::{Journal, Replay};
use cofferdam_ledger::{
    Ledger,
    address::ScsiAddress,
    request::{DiskKind, GuestRequest, HostRequest},
};
use cofferdam_plan::{Plan, PlanRequest, Spec, plan, wanted};
use cofferdam_vm::{Driver, Guest, GuestError};
use serde_json::json;

pub(crate) const ADDRESS: ScsiAddress = ScsiAddress {
    controller: 0,
    lun: 0,
};

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

/// One test's own part of the host.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
    pub(crate) host: LocalHost,
}

impl Scene {
    pub(crate) fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "loop devices and mounts need root: run the process ring as root"
        );
        let dir = tempfile::tempdir().unwrap();
        for name in ["state", "bundle", "images"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let host = LocalHost::new(Owner::of(&dir.path().join("state")).unwrap());
        Self { dir, host }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn owner(&self) -> Owner {
        self.host.owner().clone()
    }

    /// An ext4 image with these files, in a format of qemu-img with its options.
    pub(crate) fn image(
        &self,
        name: &str,
        files: &[(&str, &str)],
        format: &str,
        options: &[&str],
    ) -> PathBuf {
        let path = self.path("images").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        make_image(&path, files, format, options);
        path
    }

    /// A layer folder.
    pub(crate) fn layer(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let options = ["-o", "subformat=fixed,force_size=on"];
        let image = self.image(&format!("{name}/layer.vhd"), files, "vpc", &options);
        image.parent().unwrap().to_owned()
    }

    /// A scratch folder.
    pub(crate) fn scratch(&self) -> PathBuf {
        let image = self.image("scratch/sandbox.vhdx", &[], "vhdx", &[]);
        image.parent().unwrap().to_owned()
    }

    /// The plan of a container with these layer folders.
    pub(crate) fn plan(&self, folders: &[PathBuf]) -> Plan {
        plan_of(&self.path("bundle"), folders)
    }

    /// A driver with a journal of its own.
    pub(crate) fn driver(&self) -> Driver {
        let ledger = Ledger::new(self.host.limits()).with_layers_below(self.owner().layers_below().unwrap());
        let path = self.path("state/journal");
        let _ = fs::remove_file(&path);
        let journal = Journal::create(&path).unwrap();
        let host = Arc::new(self.host.clone());
        Driver::new(host.clone(), host, ledger, Some(journal))
    }

    pub(crate) async fn allocate(&self, driver: &Driver, plan: &Plan) -> Result<Allocation, AllocateError> {
        Allocation::allocate(driver, plan).await
    }

    pub(crate) fn replay(&self) -> Replay {
        Replay::read(&self.path("state/journal")).unwrap()
    }

    pub(crate) async fn attach(&self, path: &Path, read_only: bool) -> Result<(), BackendError> {
        self.attach_at(ADDRESS, path, DiskKind::Virtual, read_only).await
    }

    pub(crate) async fn attach_at(
        &self,
        address: ScsiAddress,
        path: &Path,
        kind: DiskKind,
        read_only: bool,
    ) -> Result<(), BackendError> {
        let request = HostRequest::AttachScsi {
            address,
            path: path.to_owned(),
            kind,
            read_only,
        };
        Backend::perform(&self.host, &request).await
    }

    pub(crate) async fn detach(&self) -> Result<(), BackendError> {
        Backend::perform(&self.host, &HostRequest::DetachScsi { address: ADDRESS }).await
    }

    pub(crate) async fn mount(&self, point: &Path, read_only: bool) -> Result<(), GuestError> {
        let request = GuestRequest::MountScsi {
            address: ADDRESS,
            guest_path: point.to_str().unwrap().to_owned(),
            read_only,
        };
        Guest::perform(&self.host, &request).await
    }

    pub(crate) async fn unmount(&self, point: &Path) -> Result<(), GuestError> {
        let request = GuestRequest::UnmountScsi {
            address: ADDRESS,
            guest_path: point.to_str().unwrap().to_owned(),
            read_only: false,
        };
        Guest::perform(&self.host, &request).await
    }

    /// Everything of this scene that the system still has: loop devices, mounts, processes.
    pub(crate) fn left(&self) -> Vec<String> {
        let here = self.dir.path().to_str().unwrap();
        let mut left: Vec<String> = fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .filter(|line| line.contains(here))
            .map(|line| format!("mount: {line}"))
            .collect();
        for entry in fs::read_dir("/sys/block").unwrap().flatten() {
            let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            if file.contains(here) {
                left.push(format!("{}: {file}", entry.path().display()));
            }
        }
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(here) {
                left.push(format!("process: {line}"));
            }
        }
        left
    }

    /// Fails unless the system has nothing of this scene any more, and the bundle is as it was: empty.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.left(), Vec::<String>::new());
        let entries: Vec<_> = fs::read_dir(self.path("bundle")).unwrap().flatten().collect();
        assert!(entries.is_empty(), "{entries:?}");
    }
}

impl Drop for Scene {
    /// A test that failed half way must not leave its mounts to the removal of its directory, nor to the next test.
    fn drop(&mut self) {
        if !self.left().is_empty() {
            let replay = Replay::read(&self.path("state/journal")).unwrap_or_default();
            for outcome in cofferdam_host::clear(&replay, &self.owner())
                .into_iter()
                .flatten()
            {
                eprintln!("left by the test: {}: {:?}", outcome.leftover, outcome.result);
            }
        }
    }
}

/// Makes an image without a scene.
pub(crate) fn make_image(path: &Path, files: &[(&str, &str)], format: &str, options: &[&str]) {
    let content = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(content.path().join(name), text).unwrap();
    }
    let raw = path.with_extension("made");
    // No journal: a layer has none either, and a hundred of them are made in one test.
    succeed(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-F", "-O", "^has_journal", "-d"])
            .arg(content.path())
            .arg(&raw)
            .arg("4M"),
    );
    if format == "raw" {
        fs::rename(&raw, path).unwrap();
        return;
    }
    succeed(
        Command::new("qemu-img")
            .args(["convert", "-O", format])
            .args(options)
            .arg(&raw)
            .arg(path),
    );
    fs::remove_file(raw).unwrap();
}

/// The plan of a container with these layer folders.
pub(crate) fn plan_of(bundle: &Path, folders: &[PathBuf]) -> Plan {
    let spec = json!({ "windows": { "layerFolders": folders } }).to_string();
    let spec = Spec::parse(&spec).unwrap();
    let check = |path: &Path| match cofferdam_image::probe(path) {
        Ok(facts) => facts.problem.map_or(Ok(()), Err),
        Err(error) => Err(error.to_string()),
    };
    let request = PlanRequest {
        spec: &spec,
        bundle,
        container_root: "/run/gcs/c/1",
        process_isolation: true,
    };
    plan(request, &facts::gather(wanted(&spec, bundle), &check)).unwrap()
}
