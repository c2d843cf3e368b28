//! A service on a socket, and clients of it.

use std::{
    future::Future,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_backend::fake::{FakeBackend, FakeOptions, FakeProgram, ProgramFor};
use cofferdam_plan::Spec;
use cofferdam_pod::Pod;
use cofferdam_task::{Owner, OwnerFailure, Service, Up, serve};
use cofferdam_vm::{BootOptions, UtilityVm};
use containerd_shim::{
    api::{CreateTaskRequest, DeleteRequest, ExecProcessRequest, KillRequest, StartRequest, WaitRequest},
    protos::{
        api::Mount,
        protobuf::well_known_types::any::Any,
        shim_async::{Client, TaskClient},
        ttrpc::{
            self, Code,
            r#async::{Server, transport::Socket},
            context::{self, Context},
        },
    },
};

/// For what must be answered.
const SOON: Duration = Duration::from_secs(30);

/// A VM that is there from the first creation on, and roots that are only counted.
pub(crate) struct FakeOwner {
    up: Up,
    asked: Mutex<bool>,
    /// How many roots are ready.
    pub(crate) roots: Mutex<i32>,
}

#[async_trait]
impl Owner for FakeOwner {
    async fn up(&self) -> Result<Up, OwnerFailure> {
        *self.asked.lock().unwrap() = true;
        Ok(self.up.clone())
    }

    fn there(&self) -> Option<Up> {
        self.asked.lock().unwrap().then(|| self.up.clone())
    }

    fn prepare(&self, bundle: &Path, _: &[Mount]) -> Result<Spec, OwnerFailure> {
        let text = std::fs::read_to_string(bundle.join("config.json"))?;
        let spec = Spec::parse(&text)?;
        *self.roots.lock().unwrap() += 1;
        Ok(spec)
    }

    fn clear(&self, _: &Path) -> Result<(), OwnerFailure> {
        *self.roots.lock().unwrap() -= 1;
        Ok(())
    }

    async fn shut_down(&self) -> Result<(), OwnerFailure> {
        Ok(())
    }
}

pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) backend: FakeBackend,
    pub(crate) pod: Arc<Pod>,
    pub(crate) service: Arc<Service<FakeOwner>>,
    pub(crate) client: TaskClient,
    _server: Server,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let backend = FakeBackend::new(FakeOptions::default());
        let vm = UtilityVm::boot(Arc::new(backend.clone()), &BootOptions::default())
            .await
            .unwrap();
        // Nobody listens for its events.
        let (pod, _) = Pod::new(vm);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rootfs")).unwrap();
        let config =
            r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"args":["init"],"cwd":"/"}}"#;
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let up = Up {
            pod: pod.clone(),
            hypervisor: 4242,
        };
        let service = Arc::new(Service::new(FakeOwner {
            up,
            asked: Mutex::new(false),
            roots: Mutex::new(0),
        }));
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let server = serve(listener, service.clone()).await.unwrap();
        let client = connect(dir.path());
        Self {
            dir,
            backend,
            pod,
            service,
            client,
            _server: server,
        }
    }

    /// Another client.
    pub(crate) fn another(&self) -> TaskClient {
        connect(self.dir.path())
    }

    /// A stream to the service that speaks nothing yet.
    pub(crate) fn stream(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("socket")).unwrap()
    }

    pub(crate) fn creation(&self, id: &str) -> CreateTaskRequest {
        CreateTaskRequest {
            id: id.to_owned(),
            bundle: self.dir.path().to_str().unwrap().to_owned(),
            ..CreateTaskRequest::default()
        }
    }

    pub(crate) async fn create(&self, id: &str) {
        self.backend
            .set_program(ProgramFor::Init(id.to_owned()), FakeProgram::runs());
        let created = answer(self.client.create(context(), &self.creation(id))).await;
        assert_eq!(created.unwrap().pid, 4242);
    }

    /// A container whose init runs until a signal ends it.
    pub(crate) async fn running(&self, id: &str) {
        self.create(id).await;
        let start = StartRequest {
            id: id.to_owned(),
            ..StartRequest::default()
        };
        answer(self.client.start(context(), &start)).await.unwrap();
    }

    /// Kills it and deletes it.
    pub(crate) async fn end(&self, id: &str) {
        let (id, client) = (id.to_owned(), &self.client);
        let kill = KillRequest {
            id: id.clone(),
            signal: 9,
            ..KillRequest::default()
        };
        answer(client.kill(context(), &kill)).await.unwrap();
        let wait = WaitRequest {
            id: id.clone(),
            ..WaitRequest::default()
        };
        answer(client.wait(context(), &wait)).await.unwrap();
        let delete = DeleteRequest {
            id,
            ..DeleteRequest::default()
        };
        answer(client.delete(context(), &delete)).await.unwrap();
    }

    /// Nothing is held by anybody.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.pod.names(), Vec::<String>::new());
        assert_eq!(*self.service.owner().roots.lock().unwrap(), 0);
        assert_eq!(self.backend.guest_containers(), Vec::<String>::new());
        assert!(self.backend.host_devices().is_empty());
        assert_eq!(self.backend.violations(), Vec::<String>::new());
    }
}

fn connect(dir: &Path) -> TaskClient {
    let stream = tokio::net::UnixStream::from_std({
        let stream = UnixStream::connect(dir.join("socket")).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    });
    TaskClient::new(Client::new(Socket::new(stream.unwrap())))
}

pub(crate) fn context() -> Context {
    context::with_duration(SOON)
}

/// An answer, which must come.
pub(crate) async fn answer<T>(asked: impl Future<Output = ttrpc::Result<T>>) -> Result<T, (Code, String)> {
    let answer = tokio::time::timeout(SOON, asked).await.expect("an answer");
    answer.map_err(|error| match error {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
        other => panic!("no refusal of the service: {other}"),
    })
}

/// What must be refused, with this code, in words that hold these.
#[track_caller]
pub(crate) fn refused<T>(answer: Result<T, (Code, String)>, code: Code, words: &str) {
    let (told, message) = answer.err().expect("it is refused");
    assert!(
        told == code && message.contains(words) && message.len() < 1000,
        "{told:?}: {message}"
    );
}

pub(crate) fn execution(id: &str, exec: &str, process: impl Into<Vec<u8>>) -> ExecProcessRequest {
    let mut spec = Any::new();
    spec.value = process.into();
    ExecProcessRequest {
        id: id.to_owned(),
        exec_id: exec.to_owned(),
        spec: Some(spec).into(),
        ..ExecProcessRequest::default()
    }
}
