//! A pod with a root filesystem, FIFOs, and the events it tells.

use std::{path::PathBuf, sync::Arc, time::Duration};

use cofferdam_backend::fake::{FakeBackend, FakeOptions, FakeProgram, ProgramFor};
use cofferdam_plan::Spec;
use cofferdam_pod::{Endpoints, Event, NewContainer, Pod, PodError, ProcessName, Status};
use cofferdam_vm::{BootOptions, UtilityVm};
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::json;
use tokio::{net::unix::pipe, sync::mpsc::UnboundedReceiver, time::timeout};

/// For what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) backend: FakeBackend,
    pub(crate) pod: Arc<Pod>,
    events: UnboundedReceiver<Event>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let backend = FakeBackend::new(FakeOptions::default());
        let vm = UtilityVm::boot(Arc::new(backend.clone()), &BootOptions::default())
            .await
            .unwrap();
        let (pod, events) = Pod::in_namespace(vm, "tests");
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rootfs")).unwrap();
        Self {
            dir,
            backend,
            pod,
            events,
        }
    }

    pub(crate) fn program(&self, id: &str, program: FakeProgram) {
        self.backend.set_program(ProgramFor::Init(id.to_owned()), program);
    }

    pub(crate) fn command(&self, name: &str, program: FakeProgram) {
        self.backend
            .set_program(ProgramFor::Command(name.to_owned()), program);
    }

    pub(crate) async fn create(&self, id: &str) -> Result<(), PodError> {
        self.create_with(id, Endpoints::default()).await
    }

    pub(crate) async fn create_with(&self, id: &str, endpoints: Endpoints) -> Result<(), PodError> {
        let spec = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs" },
            "process": { "args": ["init"], "cwd": "/" },
        });
        let spec = Spec::parse(&spec.to_string()).unwrap();
        let new = NewContainer {
            id,
            spec: &spec,
            bundle: self.dir.path(),
            endpoints,
            check_image: &|_| Ok(()),
        };
        self.pod.create(new).await
    }

    /// A container whose init runs until a signal ends it.
    pub(crate) async fn running(&self, id: &str) -> ProcessName {
        self.program(id, FakeProgram::runs());
        self.create(id).await.unwrap();
        let name = ProcessName::init(id);
        self.pod.start(&name).await.unwrap();
        name
    }

    pub(crate) fn fifo(&self, name: &str) -> String {
        let path = self.path(name);
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn reader(&self, fifo: &str) -> pipe::Receiver {
        pipe::OpenOptions::new().open_receiver(fifo).unwrap()
    }

    pub(crate) fn status(&self, name: &ProcessName) -> Status {
        self.pod.state(name).unwrap().status
    }

    /// The status a process ends with.
    pub(crate) async fn exit(&self, name: &ProcessName) -> u8 {
        timeout(SOON, self.pod.wait(name))
            .await
            .expect("it ends")
            .unwrap()
            .status
    }

    /// The events since the last look, as words.
    pub(crate) fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            told.push(match event {
                Event::Created { container, .. } => format!("created {container}"),
                Event::Started { name } => format!("started {name}"),
                Event::ExecAdded { name } => format!("added {name}"),
                Event::Exited { name, exit } => format!("exited {name}: {}", exit.status),
                Event::Deleted { name, exit } => format!("deleted {name}: {}", exit.status),
                other => format!("{other:?}"),
            });
        }
        told
    }

    /// Nothing is held by anybody.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.pod.names(), Vec::<String>::new());
        assert_eq!(self.backend.guest_containers(), Vec::<String>::new());
        assert!(self.backend.guest_mounts().is_empty());
        assert!(self.backend.host_devices().is_empty());
        assert!(self.pod.vm().driver().ledger().view().slots.is_empty());
        assert_eq!(self.backend.violations(), Vec::<String>::new());
    }
}
