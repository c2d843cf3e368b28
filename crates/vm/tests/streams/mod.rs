//! A VM with a program in it that dials streams and does with them what it is told.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub(crate) mod ends;

use std::{fs, future::Future, path::PathBuf, process::Command, sync::Arc, sync::OnceLock, time::Duration};

use cofferdam_backend::{Backend, BoxListener, BoxStream, guest_settings};
use cofferdam_ledger::request::{GuestRequest, HostRequest, ShareId};
use cofferdam_protocol::{
    NULL_CONTAINER_ID,
    message::{ProcessParameters, VsockStdioRelaySettings},
};
use cofferdam_qemu::{QemuBackend, QemuConfig};
use cofferdam_vm::{BootOptions, UtilityVm};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// No single step takes longer, or the streams stand still. Generous: the VM may be emulated on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const CONTROL_PORT: u32 = 5000;
const DATA_PORT: u32 = 5001;
const PROGRAM_DIR: &str = "/run/streams";
const SHARE: ShareId = ShareId(77);

/// The result, or a failed test that says what did not come.
pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {limit:?}"))
}

/// The program for the guest, built once.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--release", "--locked", "--message-format", "json"])
            .args(["--target", "x86_64-unknown-linux-musl"])
            .args(["-p", "cofferdam-vsock", "--example", "streams"]);
        let built = cargo.output().unwrap();
        assert!(
            built.status.success(),
            "building the guest's program: {}",
            String::from_utf8_lossy(&built.stderr)
        );
        String::from_utf8_lossy(&built.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
            .expect("cargo says where it put the program")
    })
}

/// A booted VM and the program in it.
pub(crate) struct Guest {
    vm: Arc<UtilityVm>,
    process: u32,
    control: BufReader<BoxStream>,
    data: BoxListener,
    _dir: tempfile::TempDir,
}

impl Guest {
    /// Boots a VM and starts the program.
    pub(crate) async fn boot() -> Self {
        let boot_dir = std::env::var_os("COFFERDAM_BOOT_DIR")
            .map(PathBuf::from)
            .expect("COFFERDAM_BOOT_DIR is not set: run `cargo xtask test vm`");
        let dir = tempfile::tempdir().unwrap();
        fs::copy(program(), dir.path().join("streams")).unwrap();

        let config = QemuConfig::new(boot_dir.join("kernel"), boot_dir.join("initramfs.cpio"));
        let backend: Arc<dyn Backend> = Arc::new(QemuBackend::new(config).unwrap());
        let mut control = backend.listen(CONTROL_PORT).await.unwrap();
        let data = backend.listen(DATA_PORT).await.unwrap();
        let vm = match UtilityVm::boot(backend.clone(), &BootOptions::default()).await {
            Ok(vm) => vm,
            Err(error) => panic!("{error}"),
        };
        let share = HostRequest::AddShare {
            share: SHARE,
            path: dir.path().to_owned(),
            read_only: true,
            allowed_names: None,
        };
        backend.perform(&share).await.unwrap();
        let mount = GuestRequest::MountShare {
            share: SHARE,
            guest_path: PROGRAM_DIR.to_owned(),
            read_only: true,
        };
        vm.bridge().modify(guest_settings(&mount)).await.unwrap();
        let arguments = [
            format!("{PROGRAM_DIR}/streams"),
            CONTROL_PORT.to_string(),
            DATA_PORT.to_string(),
        ];
        let parameters = ProcessParameters {
            command_args: arguments.into(),
            ..ProcessParameters::default()
        };
        let process = vm
            .bridge()
            .execute_process(NULL_CONTAINER_ID, parameters, VsockStdioRelaySettings::default())
            .await
            .unwrap();
        let control = within(LIMIT, "the program in the guest", control.accept())
            .await
            .unwrap();
        Self {
            vm,
            process,
            control: BufReader::new(control),
            data,
            _dir: dir,
        }
    }

    /// Gives the program a command.
    pub(crate) async fn tell(&mut self, command: &str) {
        let line = format!("{command}\n");
        let written = self.control.get_mut().write_all(line.as_bytes());
        within(LIMIT, command, written).await.unwrap();
    }

    /// The answer to the last command: its figure.
    pub(crate) async fn answer(&mut self) -> u64 {
        self.answer_within(LIMIT).await
    }

    pub(crate) async fn answer_within(&mut self, limit: Duration) -> u64 {
        let mut line = String::new();
        within(limit, "the guest's answer", self.control.read_line(&mut line))
            .await
            .unwrap();
        match line.trim_end().split_once(' ') {
            Some(("ok", figure)) => figure.parse().unwrap(),
            _ => panic!("the guest: {line:?}"),
        }
    }

    /// The next stream the program dials.
    pub(crate) async fn accept(&mut self) -> BoxStream {
        within(LIMIT, "a stream of the guest", self.data.accept())
            .await
            .unwrap()
    }

    /// A command that needs one stream, and that stream.
    pub(crate) async fn stream(&mut self, command: &str) -> BoxStream {
        self.tell(command).await;
        self.accept().await
    }

    /// Ends the program as hard as can be.
    pub(crate) async fn kill(&self) {
        self.vm
            .bridge()
            .signal_process(NULL_CONTAINER_ID, self.process, None)
            .await
            .unwrap();
    }

    /// Ends the VM as hard as can be.
    pub(crate) async fn stop(&self) {
        self.vm.backend().stop().await.unwrap();
    }

    /// Powers the VM off.
    pub(crate) async fn end(self) {
        within(LIMIT, "the end of the VM", self.vm.shut_down())
            .await
            .unwrap();
    }
}
