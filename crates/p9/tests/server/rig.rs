//! A server on one end of socket pairs, and temporary directories to export.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use cofferdam_p9::{Export, Exports, P9Error, Server, ServerOptions};
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::client::Client;

pub(crate) const MSIZE: u32 = 64 * 1024;

pub(crate) struct Rig {
    pub(crate) exports: Arc<Exports>,
    pub(crate) dir: tempfile::TempDir,
    runtime: Runtime,
    server: Server,
}

impl Rig {
    /// An empty directory offered as `share`, for reading and writing.
    pub(crate) fn new() -> Self {
        Self::with(ServerOptions::default())
    }

    pub(crate) fn with(options: ServerOptions) -> Self {
        let rig = Self::without_exports(options);
        rig.export("share", false, None);
        rig
    }

    pub(crate) fn without_exports(options: ServerOptions) -> Self {
        let exports = Arc::new(Exports::new());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = Server::new(Arc::clone(&exports), options);
        Self {
            exports,
            dir: tempfile::tempdir().unwrap(),
            runtime,
            server,
        }
    }

    /// Offers the directory once more, as `name`.
    pub(crate) fn export(&self, name: &str, read_only: bool, allowed_names: Option<&[&str]>) {
        let allowed_names = allowed_names.map(|names| names.iter().map(Into::into).collect());
        let export = Export {
            path: self.dir.path().into(),
            read_only,
            allowed_names,
        };
        self.exports.add(name.into(), export).unwrap();
    }

    /// A file below the exported directory, on the host.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A connection, and how the server ends it.
    pub(crate) fn raw_connection(&self) -> (UnixStream, JoinHandle<Result<(), P9Error>>) {
        let (client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let _guard = self.runtime.enter();
        let stream = tokio::net::UnixStream::from_std(server).unwrap();
        let server = self.server.clone();
        (
            client,
            self.runtime.spawn(async move { server.serve(stream).await }),
        )
    }

    pub(crate) fn connect(&self) -> Client {
        Client::new(self.raw_connection().0, MSIZE)
    }

    /// A client attached to `share`, and its root.
    pub(crate) fn attached(&self) -> (Client, u32) {
        self.attached_to("share")
    }

    pub(crate) fn attached_to(&self, name: &str) -> (Client, u32) {
        let mut client = self.connect();
        let root = client.attach(name);
        (client, root)
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}

/// How many of this process's descriptors are files at or below `path`.
pub(crate) fn open_below(path: &Path) -> usize {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.starts_with(path))
        .count()
}

/// Whether the tests run with all rights; what differs otherwise is said in each test.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
