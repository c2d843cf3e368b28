//! The backend: one VM under QEMU, from its settings to its end.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_backend::{Backend, BackendError, BoxListener, Devices, VmExit};
use cofferdam_ledger::{
    address::{LUNS_PER_CONTROLLER, Limits, ScsiAddress},
    request::{DiskKind, HostRequest, ShareId},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::watch, task::AbortHandle, time::timeout};

use crate::{
    accelerator::{self, Choice},
    checks::{check, disk_problem, firmware, probed, vpmem_length},
    command_line::{Resolved, command_line},
    config::{QemuConfig, VsockDevice},
    disk,
    hotplug::{self, pmem_id, pmem_object},
    machine::{Machine, Watch},
    network,
    qmp::{QmpClient, QmpError},
    runtime_dir,
    shares::Shares,
    transport::Transport,
};

/// The vsock port of the Plan 9 server (GCS bridge protocol §7.5).
pub const PLAN9_PORT: u32 = 564;
/// For QEMU to end by itself when told to.
const QUIT_LIMIT: Duration = Duration::from_secs(2);
/// For the kernel to end it when killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// From the end of QMP to the news that QEMU has ended.
const GONE_LIMIT: Duration = Duration::from_secs(3);

/// One utility VM under QEMU. Dropping it kills QEMU and frees everything.
pub struct QemuBackend {
    config: QemuConfig,
    accelerator: Choice,
    dir_path: PathBuf,
    /// `None` once it is gone.
    dir: Mutex<Option<TempDir>>,
    shares: Shares,
    share_server: Mutex<Option<AbortHandle>>,
    /// `None` once stopped.
    transport: Mutex<Option<Arc<Transport>>>,
    started: AtomicBool,
    machine: OnceLock<Arc<Machine>>,
    asked_to_end: Arc<AtomicBool>,
    exit: watch::Sender<Option<VmExit>>,
}

impl QemuBackend {
    /// Prepares a VM: chooses the accelerator, makes the private directory, opens the vsock device. Nothing runs yet.
    ///
    /// # Errors
    /// The limits or the network adapters are beyond what a VM can have, a port of the host that is to lead to the guest
    /// is taken, or the directory or the vsock device cannot be made.
    pub fn new(config: QemuConfig) -> Result<Self, BackendError> {
        check(&config.limits)?;
        network::check(&config.network)?;
        let dir = runtime_dir::create(config.runtime_dir.as_deref())
            .map_err(|source| failed("make the VM's runtime directory", source))?;
        let dir_path = dir.path().to_owned();
        let accelerator = accelerator::choose(config.accelerator);
        tracing::info!(%accelerator, "accelerator chosen");
        let transport = Transport::new(
            config.vsock,
            runtime_dir::socket(&dir_path, "vsock"),
            config.guest_cid,
        )
        .map_err(|source| failed("open the vsock device", source))?;
        Ok(Self {
            config,
            accelerator,
            dir_path,
            dir: Mutex::new(Some(dir)),
            shares: Shares::default(),
            share_server: Mutex::default(),
            transport: Mutex::new(Some(Arc::new(transport))),
            started: AtomicBool::new(false),
            machine: OnceLock::new(),
            asked_to_end: Arc::default(),
            exit: watch::channel(None).0,
        })
    }

    /// The accelerator the VM runs with, and why.
    pub fn accelerator(&self) -> &Choice {
        &self.accelerator
    }

    /// The VM's private directory. It is gone after [`Backend::stop`], unless it is kept after a failure.
    pub fn runtime_dir(&self) -> &Path {
        &self.dir_path
    }

    /// QEMU's process number, once started.
    pub fn process_id(&self) -> Option<u32> {
        self.machine.get().map(|machine| machine.process_id())
    }

    /// The console's last lines so far, oldest first.
    pub fn console_tail(&self) -> Vec<String> {
        self.machine
            .get()
            .map(|machine| machine.console_tail())
            .unwrap_or_default()
    }

    async fn launch(&self) -> Result<(), BackendError> {
        let transport = self.transport()?;
        if self.config.vsock != VsockDevice::None {
            let listener = self.listen(PLAN9_PORT).await?;
            let server = tokio::spawn(self.shares.clone().serve(listener));
            *locked(&self.share_server) = Some(server.abort_handle());
        }
        let resolved = Resolved {
            kvm: self.accelerator.kvm,
            firmware: firmware(&self.config),
            vsock_socket: transport.socket(),
        };
        let watch = Watch {
            exit: self.exit.clone(),
            asked: Arc::clone(&self.asked_to_end),
            keep_in: self.config.keep_on_failure.then(|| self.dir_path.clone()),
        };
        let program = self.config.program.clone();
        let action = format!("start {}", program.to_string_lossy());
        let (machine, stream) = Machine::launch(
            program,
            command_line(&self.config, &resolved),
            network::surroundings(&self.config.network),
            watch,
        )
        .await
        .map_err(|source| failed(&action, source))?;
        let machine = self.machine.get_or_init(|| machine);
        if self.asked_to_end.load(Ordering::SeqCst) {
            machine.kill();
        }
        if let Err(error) = machine.negotiate(stream).await {
            // Whatever it is, a QEMU that does not talk is of no use.
            if !matches!(error, QmpError::Closed(None)) {
                machine.kill();
            }
            return Err(self.because(&action, error).await);
        }
        Ok(())
    }

    fn transport(&self) -> Result<Arc<Transport>, BackendError> {
        locked(&self.transport)
            .clone()
            .ok_or_else(|| BackendError::Gone(self.known_exit()))
    }

    fn known_exit(&self) -> VmExit {
        self.exit
            .borrow()
            .clone()
            .unwrap_or_else(|| ended_without_qemu("is being stopped", true))
    }

    fn qmp(&self) -> Result<&QmpClient, BackendError> {
        if let Some(exit) = self.exit.borrow().clone() {
            return Err(BackendError::Gone(exit));
        }
        self.machine
            .get()
            .and_then(|machine| machine.qmp())
            .ok_or_else(|| BackendError::Unsupported("the utility VM has not been started".to_owned()))
    }

    /// A failed command, told as a failed step. A connection that ended means that the VM is gone.
    async fn because(&self, action: &str, error: QmpError) -> BackendError {
        let action = action.to_owned();
        match error {
            QmpError::Refused { description, .. } => BackendError::Refused {
                action,
                reason: description,
            },
            QmpError::TimedOut { limit_ms } => BackendError::TimedOut { action, limit_ms },
            QmpError::Closed(why) => match timeout(GONE_LIMIT, self.exited()).await {
                Ok(exit) => BackendError::Gone(exit),
                Err(_) => {
                    let why = why.unwrap_or_else(|| "QEMU closed its control connection".to_owned());
                    BackendError::Refused { action, reason: why }
                }
            },
        }
    }

    async fn attach_scsi(
        &self,
        address: ScsiAddress,
        path: &Path,
        kind: DiskKind,
        read_only: bool,
    ) -> Result<(), BackendError> {
        let action = format!("attach {} at {address}", path.display());
        self.check_address(address)?;
        let qmp = self.qmp()?;
        let facts = probed(path).await.map_err(|source| failed(&action, source))?;
        if let Some(problem) = disk_problem(&facts, kind) {
            return Err(failed(
                &action,
                io::Error::new(io::ErrorKind::InvalidData, problem),
            ));
        }
        let node = disk::block_node(address, path, &facts, read_only).ok_or_else(|| {
            failed(
                &action,
                io::Error::new(io::ErrorKind::InvalidInput, "the path is no UTF-8"),
            )
        })?;
        match hotplug::attach_scsi(qmp, address, node).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.because(&action, error).await),
        }
    }

    async fn attach_vpmem(&self, index: u32, path: &Path) -> Result<(), BackendError> {
        let action = format!("attach {} as persistent memory {index}", path.display());
        if index >= self.config.limits.vpmem_devices {
            return Err(BackendError::Unsupported(format!(
                "{action}: this VM has {} persistent-memory devices",
                self.config.limits.vpmem_devices
            )));
        }
        let qmp = self.qmp()?;
        let facts = probed(path).await.map_err(|source| failed(&action, source))?;
        let length = vpmem_length(&facts, self.config.limits.vpmem_max_bytes)
            .map_err(|problem| failed(&action, io::Error::new(io::ErrorKind::InvalidData, problem)))?;
        let path = path.to_str().ok_or_else(|| {
            failed(
                &action,
                io::Error::new(io::ErrorKind::InvalidInput, "the path is no UTF-8"),
            )
        })?;
        match hotplug::attach_vpmem(qmp, index, path, length).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.because(&action, error).await),
        }
    }

    async fn detach_vpmem(&self, index: u32) -> Result<(), BackendError> {
        let action = format!("detach persistent memory {index}");
        match hotplug::detach_vpmem(self.qmp()?, index).await {
            Ok(()) => Ok(()),
            // QEMU itself says that it cannot: no retry will help.
            Err(QmpError::Refused { description, .. }) => Err(BackendError::Unsupported(format!(
                "{action}: {description} It stays until the VM ends"
            ))),
            Err(error) => Err(self.because(&action, error).await),
        }
    }

    fn check_address(&self, address: ScsiAddress) -> Result<(), BackendError> {
        if address.controller < self.config.limits.scsi_controllers && address.lun < LUNS_PER_CONTROLLER {
            return Ok(());
        }
        Err(BackendError::Unsupported(format!(
            "{address} does not exist: this VM has {} SCSI controllers with {LUNS_PER_CONTROLLER} LUNs each",
            self.config.limits.scsi_controllers
        )))
    }

    async fn inventory(&self, qmp: &QmpClient) -> Result<Devices, QmpError> {
        let peripherals = hotplug::children(qmp, "/machine/peripheral").await?;
        let objects = hotplug::children(qmp, "/objects").await?;
        let nodes = hotplug::node_names(qmp).await?;
        let mut devices = Devices {
            shares: self.shares.live().collect(),
            ..Devices::default()
        };
        for index in 0..self.config.limits.vpmem_devices {
            if peripherals.contains(&pmem_id(index)) {
                devices.vpmem.insert(index);
            } else if objects.contains(&pmem_object(index)) {
                devices.leftovers.insert(pmem_object(index));
            }
        }
        devices
            .scsi
            .extend(peripherals.iter().filter_map(|id| disk::address_of_device(id)));
        for node in nodes {
            if disk::address_of_node(&node).is_some_and(|address| !devices.scsi.contains(&address)) {
                devices.leftovers.insert(node);
            }
        }
        Ok(devices)
    }

    /// Frees what does not end with QEMU itself.
    fn free(&self) {
        if let Some(server) = locked(&self.share_server).take() {
            server.abort();
        }
        *locked(&self.transport) = None;
        let Some(dir) = locked(&self.dir).take() else {
            return;
        };
        let failed = self.exit.borrow().as_ref().is_some_and(|exit| !exit.expected);
        if failed && self.config.keep_on_failure {
            let path = dir.keep();
            tracing::warn!(path = %path.display(), "the VM failed; its directory is kept");
        } else if let Err(error) = dir.close() {
            tracing::warn!(%error, "the VM's runtime directory could not be removed");
        }
    }
}

impl Drop for QemuBackend {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.get() {
            if self.exit.borrow().is_none() {
                self.asked_to_end.store(true, Ordering::SeqCst);
            }
            machine.kill();
        }
        self.free();
    }
}

#[async_trait]
impl Backend for QemuBackend {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn limits(&self) -> Limits {
        self.config.limits
    }

    async fn listen(&self, port: u32) -> Result<BoxListener, BackendError> {
        let transport = self.transport()?;
        transport
            .listen(port)
            .await
            .map_err(|source| failed(&format!("listen on vsock port {port}"), source))
    }

    async fn start(&self) -> Result<(), BackendError> {
        if self.started.swap(true, Ordering::SeqCst) {
            return Err(BackendError::Unsupported(
                "the utility VM was started before".to_owned(),
            ));
        }
        // Nobody may wait for the end of a machine that never was.
        let _told = TellIfNeverStarted(self);
        self.launch().await
    }

    async fn perform(&self, request: &HostRequest) -> Result<(), BackendError> {
        match request {
            HostRequest::AttachScsi {
                address,
                path,
                kind,
                read_only,
            } => self.attach_scsi(*address, path, *kind, *read_only).await,
            HostRequest::DetachScsi { address } => {
                self.check_address(*address)?;
                match hotplug::detach_scsi(self.qmp()?, *address).await {
                    Ok(()) => Ok(()),
                    Err(error) => Err(self.because(&format!("detach {address}"), error).await),
                }
            }
            HostRequest::AttachVpmem { index, path } => self.attach_vpmem(*index, path).await,
            HostRequest::DetachVpmem { index } => self.detach_vpmem(*index).await,
            HostRequest::AddShare {
                share,
                path,
                read_only,
                allowed_names,
            } => {
                self.add_share(*share, path, *read_only, allowed_names.as_deref())
                    .await
            }
            HostRequest::RemoveShare { share } => {
                self.shares.remove(*share).await;
                Ok(())
            }
            HostRequest::DeleteFile { path } => match tokio::fs::remove_file(path).await {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    Err(failed(&format!("delete {}", path.display()), source))
                }
                _ => Ok(()),
            },
        }
    }

    async fn devices(&self) -> Result<Devices, BackendError> {
        match self.inventory(self.qmp()?).await {
            Ok(devices) => Ok(devices),
            Err(error) => Err(self.because("ask what is plugged in", error).await),
        }
    }

    async fn exited(&self) -> VmExit {
        let mut exit = self.exit.subscribe();
        match exit.wait_for(Option::is_some).await.map(|exit| exit.clone()) {
            Ok(Some(exit)) => exit,
            // The sender lives as long as this backend, and waiting ends with a value.
            _ => ended_without_qemu("ended", false),
        }
    }

    async fn stop(&self) -> Result<VmExit, BackendError> {
        if self.exit.borrow().is_none() {
            self.asked_to_end.store(true, Ordering::SeqCst);
        }
        if !self.started.swap(true, Ordering::SeqCst) {
            self.exit
                .send_replace(Some(ended_without_qemu("was never started", true)));
        }
        if let Some(machine) = self.machine.get() {
            if let Some(qmp) = machine.qmp() {
                // Whatever the answer, what counts is whether it ends.
                let _ = qmp.execute("quit", Value::Null, QUIT_LIMIT).await;
                let _ = timeout(QUIT_LIMIT, self.exited()).await;
            }
            machine.kill();
        }
        let exit = timeout(KILL_LIMIT, self.exited())
            .await
            .map_err(|_| BackendError::TimedOut {
                action: "kill QEMU".to_owned(),
                limit_ms: KILL_LIMIT.as_millis() as u64,
            })?;
        self.free();
        Ok(exit)
    }
}

impl QemuBackend {
    async fn add_share(
        &self,
        share: ShareId,
        path: &Path,
        read_only: bool,
        allowed_names: Option<&[String]>,
    ) -> Result<(), BackendError> {
        let added = self.shares.add(share, path, read_only, allowed_names).await;
        added.map_err(|error| {
            failed(
                &format!("share {} as {share}", path.display()),
                io::Error::other(error),
            )
        })
    }
}

/// Tells the end when starting ended, or was given up, before there was a machine.
struct TellIfNeverStarted<'a>(&'a QemuBackend);

impl Drop for TellIfNeverStarted<'_> {
    fn drop(&mut self) {
        if self.0.machine.get().is_none() {
            let expected = self.0.asked_to_end.load(Ordering::SeqCst);
            self.0
                .exit
                .send_replace(Some(ended_without_qemu("could not be started", expected)));
        }
    }
}

fn ended_without_qemu(status: &str, expected: bool) -> VmExit {
    VmExit {
        expected,
        status: status.to_owned(),
        message: String::new(),
        console_tail: Vec::new(),
    }
}

fn failed(action: &str, source: io::Error) -> BackendError {
    BackendError::Io {
        action: action.to_owned(),
        source,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What these locks guard is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
