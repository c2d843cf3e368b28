//! A fake VM with containers that want something of everything.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test target uses a part of it, and a test may panic"
)]

pub(crate) mod running;

use std::{fs, path::PathBuf, sync::Arc};

use cofferdam_backend::fake::{FakeBackend, FakeOptions};
use cofferdam_container::facts;
use cofferdam_plan::{Plan, PlanRequest, Spec, plan, wanted};
use cofferdam_vm::{BootOptions, UtilityVm};
use serde_json::json;

/// A VM that has booted, and files for its containers.
pub(crate) struct Pod {
    pub(crate) backend: FakeBackend,
    pub(crate) vm: Arc<UtilityVm>,
    dir: tempfile::TempDir,
}

impl Pod {
    pub(crate) async fn boot() -> Self {
        Self::boot_with(FakeOptions {
            require_paths: true,
            ..FakeOptions::default()
        })
        .await
    }

    pub(crate) async fn boot_with(options: FakeOptions) -> Self {
        let backend = FakeBackend::new(options);
        let vm = UtilityVm::boot(Arc::new(backend.clone()), &BootOptions::default())
            .await
            .unwrap();
        let pod = Self {
            backend,
            vm,
            dir: tempfile::tempdir().unwrap(),
        };
        for folder in ["base", "upper", "share"] {
            fs::create_dir(pod.path(folder)).unwrap();
        }
        for file in ["base/layer.vhd", "upper/layer.vhd", "data.qcow2", "share/one"] {
            fs::write(pod.path(file), "content").unwrap();
        }
        pod
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A container with two layers, a scratch and an auto-managed disk of its own, a disk that all share, a directory
    /// and a single file.
    pub(crate) fn container(&self, name: &str) -> Plan {
        fs::create_dir_all(self.path(name)).unwrap();
        for file in ["sandbox.vhdx", "managed.vhdx"] {
            fs::write(self.path(name).join(file), "content").unwrap();
        }
        let managed = format!("{name}/managed.vhdx");
        let mount = |kind: &str, source: &str, destination: &str| json!({ "type": kind, "source": source, "destination": destination });
        let spec = json!({
            "process": { "args": [name] },
            "windows": { "layerFolders": ["upper", "base", name] },
            "mounts": [
                mount("proc", "proc", "/proc"),
                mount("virtual-disk", "data.qcow2", "/data"),
                mount("automanage-virtual-disk", &managed, "/managed"),
                mount("bind", "share", "/share"),
                mount("bind", "share/one", "/one"),
            ],
        });
        let spec = Spec::parse(&spec.to_string()).unwrap();
        let found = facts::gather(wanted(&spec, self.dir.path()), &|_| Ok(()));
        let request = PlanRequest {
            spec: &spec,
            bundle: self.dir.path(),
            container_root: &self.vm.new_container_root(),
            process_isolation: false,
        };
        plan(request, &found).unwrap()
    }

    /// The file of the container's disk that is deleted on release.
    pub(crate) fn managed_disk(&self, name: &str) -> PathBuf {
        self.path(name).join("managed.vhdx")
    }

    /// Nothing is attached, mounted or held, and no rule was broken on the way.
    #[track_caller]
    pub(crate) fn assert_empty(&self, when: &str) {
        assert_eq!(self.backend.violations(), [""; 0], "{when}");
        assert!(
            self.backend.guest_mounts().is_empty(),
            "{when}: {:?}",
            self.backend.guest_mounts()
        );
        assert!(
            self.backend.host_devices().is_empty(),
            "{when}: {:?}",
            self.backend.host_devices()
        );
        let view = self.vm.driver().ledger().view();
        assert!(view.slots.is_empty(), "{when}: {:?}", view.slots);
    }
}
