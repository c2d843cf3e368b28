//! The agent as it is used: PID 1 of a utility VM, over vsock. Every case is tried, and none fails.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cofferdam_backend::{Backend, BoxListener, BoxStream};
use cofferdam_conformance::{
    agent::{Agent, Link, Port},
    cases,
    frame::{VM, word},
    report::{Report, Result as Ended},
    runner::Runner,
    session::{Owed, Session},
    setup::{ContainerSetup, Setup, find_busybox, make_root, minimal_spec},
};
use cofferdam_ledger::request::{HostRequest, ShareId};
use cofferdam_qemu::{QemuBackend, QemuConfig};
use serde_json::json;
use tokio::{runtime::Handle, task::AbortHandle};

/// The ports of the protocol's §1.
const BRIDGE: u32 = 0x4000_0000;
const LOG: u32 = 109;
/// Where the VM has the container's root, which also has the shell of the VM's own processes.
const ROOT: &str = "/run/conformance";
const SHARE: u64 = 77;
/// Until the agent dials: an emulated machine boots in its own time.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// For one answer. Thousands of processes are started within three of these.
const LIMIT: Duration = Duration::from_secs(60);

/// The agent of a VM: the suite's blocking ends are sockets, and tasks copy between them and the VM's streams.
struct VmAgent {
    runtime: Handle,
    backend: Arc<dyn Backend>,
    bridge: BoxListener,
    directory: tempfile::TempDir,
    connection: Option<UnixStream>,
}

/// Copies both ways until both ends are through, or one breaks.
async fn join(mut guest: BoxStream, host: UnixStream) -> io::Result<()> {
    host.set_nonblocking(true)?;
    let mut host = tokio::net::UnixStream::from_std(host)?;
    tokio::io::copy_bidirectional(&mut guest, &mut host).await?;
    Ok(())
}

/// Ends a port's task, and with it the listener.
struct Abort(AbortHandle, PathBuf);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
        let _ = std::fs::remove_file(&self.1);
    }
}

impl Agent for VmAgent {
    fn connect(&mut self) -> Result<Link, String> {
        let accepted = self
            .runtime
            .block_on(async { tokio::time::timeout(BOOT_LIMIT, self.bridge.accept()).await });
        let guest = accepted
            .map_err(|_| "the agent did not dial the bridge".to_owned())?
            .map_err(|error| error.to_string())?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        self.runtime.spawn(join(guest, theirs));
        self.connection = Some(ours.try_clone().map_err(|error| error.to_string())?);
        Link::of_socket(ours).map_err(|error| error.to_string())
    }

    fn disconnect(&mut self) -> Result<(), String> {
        if let Some(connection) = self.connection.take() {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        Ok(())
    }

    fn is_new_each_time(&self) -> bool {
        false
    }

    fn listen(&mut self, number: u32) -> io::Result<Port> {
        let path = self.directory.path().join(number.to_string());
        let listener = UnixListener::bind(&path)?;
        let mut guest = self
            .runtime
            .block_on(self.backend.listen(number))
            .map_err(io::Error::other)?;
        let dialled = path.clone();
        let task = self.runtime.spawn(async move {
            while let Ok(stream) = guest.accept().await {
                let Ok(host) = UnixStream::connect(&dialled) else {
                    break;
                };
                tokio::spawn(join(stream, host));
            }
        });
        Port::new(number, listener, Abort(task.abort_handle(), path))
    }
}

/// Gives the VM a directory of this machine, with the suite's own frames.
fn mount(agent: &mut VmAgent, directory: &Path) {
    let share = HostRequest::AddShare {
        share: ShareId(SHARE),
        path: directory.to_owned(),
        read_only: true,
        allowed_names: None,
    };
    let backend = Arc::clone(&agent.backend);
    agent.runtime.block_on(backend.perform(&share)).unwrap();
    let link = agent.connect().unwrap();
    let mut session = Session::new(link.reader, link.writer, link.half_close, Owed::default(), LIMIT);
    let range = json!({"ContainerId": "", "MinimumVersion": 4, "MaximumVersion": 4});
    session
        .call(word::NEGOTIATE_PROTOCOL, &range)
        .unwrap()
        .ok()
        .unwrap();
    let settings = json!({"MountPath": ROOT, "Port": 564, "ShareName": SHARE.to_string(), "ReadOnly": true});
    let request = json!({"RequestType": "Add", "ResourceType": "MappedDirectory", "Settings": settings});
    let body = json!({"ContainerId": VM, "Request": request});
    session.call(word::MODIFY_SETTINGS, &body).unwrap().ok().unwrap();
    drop(session);
    agent.disconnect().unwrap();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn the_agent_of_a_vm_keeps_every_rule() {
    let boot_dir = std::env::var_os("COFFERDAM_BOOT_DIR")
        .map(PathBuf::from)
        .expect("COFFERDAM_BOOT_DIR is not set: run `cargo xtask test vm`");
    let root = tempfile::tempdir().unwrap();
    make_root(root.path(), &find_busybox().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();

    let mut config = QemuConfig::new(boot_dir.join("kernel"), boot_dir.join("initramfs.cpio"));
    // For the thousands of processes of one case.
    config.memory_bytes = 2 << 30;
    let backend: Arc<dyn Backend> = Arc::new(QemuBackend::new(config).unwrap());
    let bridge = runtime.block_on(backend.listen(BRIDGE)).unwrap();
    let mut logs = runtime.block_on(backend.listen(LOG)).unwrap();
    runtime.spawn(async move {
        while let Ok(mut log) = logs.accept().await {
            tokio::spawn(async move { tokio::io::copy(&mut log, &mut tokio::io::sink()).await });
        }
    });
    runtime.block_on(backend.start()).unwrap();
    let mut agent = VmAgent {
        runtime: runtime.handle().clone(),
        backend: Arc::clone(&backend),
        bridge,
        directory: tempfile::tempdir().unwrap(),
        connection: None,
    };
    mount(&mut agent, root.path());

    let busybox = format!("{ROOT}/bin/busybox");
    let setup = Setup {
        shell: Ok(vec![busybox, "sh".into(), "-c".into()]),
        container: Ok(ContainerSetup::given(
            minimal_spec(Path::new(ROOT)),
            PathBuf::from("/run/gcs/c"),
        )),
        may_power_off: true,
    };
    let report = Runner::new(&mut agent, &setup, LIMIT).run(&cases::all(), |row| {
        println!("{}", Report::line(row, 45));
    });
    println!("{}", report.summary());
    // The last case has ended it.
    let gone = runtime.block_on(async { tokio::time::timeout(LIMIT, backend.exited()).await });
    let stopped = runtime.block_on(backend.stop());
    for row in &report.cases {
        assert_eq!(row.result, Ended::Passed, "{}: {:?}", row.case, row.reason);
    }
    assert_eq!(report.cases.len(), cases::all().len());
    gone.expect("the VM has powered off");
    stopped.unwrap();
}
