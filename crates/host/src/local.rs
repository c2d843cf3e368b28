//! The host as both parties of a driver: it attaches, and it mounts.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use cofferdam_backend::{Backend, BackendError, BoxListener, Devices, VmExit};
use cofferdam_ledger::{
    address::{Limits, MAX_SCSI_CONTROLLERS},
    request::{GuestRequest, HostRequest},
};
use cofferdam_mounting::mountinfo;
use cofferdam_vm::{Guest, GuestError};
use tokio::sync::watch;

use crate::{
    Owner,
    disks::Disks,
    error::{During, HostError, Result},
    files::remove_file,
    mounts::Mounts,
};

/// This host in the place of a utility VM, for one owner. Cheap to clone; clones are one.
#[derive(Debug, Clone)]
pub struct LocalHost {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    disks: Disks,
    mounts: Mounts,
    stopped: watch::Sender<bool>,
}

impl LocalHost {
    /// The host for an owner. Nothing is touched.
    #[must_use]
    pub fn new(owner: Owner) -> Self {
        Self {
            inner: Arc::new(Inner {
                disks: Disks::new(owner),
                mounts: Mounts::default(),
                stopped: watch::Sender::new(false),
            }),
        }
    }

    /// Whose devices these are.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        self.inner.disks.owner()
    }

    /// What an owner can take: disks by the addresses the ledger knows, and nothing else.
    #[must_use]
    pub fn limits() -> Limits {
        Limits {
            scsi_controllers: MAX_SCSI_CONTROLLERS,
            vpmem_devices: 0,
            vpmem_max_bytes: 0,
        }
    }

    /// Whether a bundle is free: a container's root is mounted in it, and its scratch, so it serves one at a time.
    ///
    /// # Errors
    /// [`HostError::Busy`] with what is mounted there; the system's.
    pub fn check_bundle(bundle: &Path) -> Result<()> {
        for name in ["rootfs", "scratch"] {
            let place = bundle.join(name);
            if mountinfo::is_mounted(&place)? {
                return Err(HostError::Busy {
                    what: format!("the bundle {}", bundle.display()),
                    holder: format!("something is mounted on {}", place.display()),
                });
            }
        }
        Ok(())
    }

    /// Steps wait for the kernel and for other programs, so they have threads of their own.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(done) => done,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(ended) => Err(std::io::Error::other(ended)).during(|| "a step on the host".to_owned()),
        }
    }
}

impl Inner {
    fn host(&self, request: HostRequest) -> Result<()> {
        match request {
            HostRequest::AttachScsi {
                address,
                path,
                kind,
                read_only,
            } => self.disks.attach(address, &path, kind, read_only),
            HostRequest::DetachScsi { address } => self.disks.detach(address),
            HostRequest::DeleteFile { path } => remove_file(&path),
            // Nothing can have been added, so nothing is there.
            HostRequest::DetachVpmem { .. } | HostRequest::RemoveShare { .. } => Ok(()),
            HostRequest::AttachVpmem { .. } => Err(HostError::Unsupported(
                "there is no persistent memory without a utility VM".to_owned(),
            )),
            HostRequest::AddShare { .. } => Err(HostError::Unsupported(
                "there are no shares without a utility VM: the container sees the host's directories"
                    .to_owned(),
            )),
        }
    }

    fn guest(&self, request: GuestRequest) -> Result<()> {
        match request {
            GuestRequest::MountScsi {
                address,
                guest_path,
                read_only,
            } => self
                .mounts
                .disk(&self.disks.node(address)?, &guest_path, read_only),
            GuestRequest::CombineLayers {
                root,
                layers,
                scratch,
            } => self.mounts.overlay(self.disks.owner(), &root, &layers, &scratch),
            GuestRequest::UnmountScsi { guest_path, .. }
            | GuestRequest::RemoveCombinedLayers { root: guest_path } => self.mounts.clear(&guest_path),
            // Unmounted is let go of.
            GuestRequest::EjectScsi { .. }
            | GuestRequest::UnmountVpmem { .. }
            | GuestRequest::UnmountShare { .. }
            | GuestRequest::RemoveContainerMount { .. } => Ok(()),
            GuestRequest::AddContainerMount { .. } => Err(HostError::Unsupported(
                "mounts cannot be added to a running container without a utility VM".to_owned(),
            )),
            GuestRequest::MountVpmem { .. } | GuestRequest::MountShare { .. } => Err(HostError::Unsupported(
                "there is neither persistent memory nor a share without a utility VM".to_owned(),
            )),
        }
    }
}

#[async_trait]
impl Backend for LocalHost {
    fn name(&self) -> &'static str {
        "host"
    }

    fn limits(&self) -> Limits {
        Self::limits()
    }

    async fn listen(&self, _port: u32) -> Result<BoxListener, BackendError> {
        Err(BackendError::Unsupported(
            "there is no guest to listen for without a utility VM".to_owned(),
        ))
    }

    async fn start(&self) -> Result<(), BackendError> {
        Ok(())
    }

    async fn perform(&self, request: &HostRequest) -> Result<(), BackendError> {
        let request = request.clone();
        Ok(self.blocking(|inner| inner.host(request)).await?)
    }

    async fn devices(&self) -> Result<Devices, BackendError> {
        let (scsi, leftovers) = self.blocking(|inner| inner.disks.attached()).await?;
        Ok(Devices {
            scsi: scsi.into_iter().collect(),
            leftovers: leftovers.into_iter().collect(),
            ..Devices::default()
        })
    }

    async fn exited(&self) -> VmExit {
        // The sender lives in `self`.
        let _ = self.inner.stopped.subscribe().wait_for(|stopped| *stopped).await;
        exit()
    }

    async fn stop(&self) -> Result<VmExit, BackendError> {
        self.blocking(|inner| {
            let tried: Vec<_> = inner
                .disks
                .known()
                .into_iter()
                .map(|address| inner.disks.detach(address))
                .collect();
            // All were tried; the first error counts.
            tried.into_iter().collect::<Result<()>>()
        })
        .await?;
        self.inner.stopped.send_replace(true);
        Ok(exit())
    }
}

#[async_trait]
impl Guest for LocalHost {
    async fn perform(&self, request: &GuestRequest) -> Result<(), GuestError> {
        let request = request.clone();
        Ok(self.blocking(|inner| inner.guest(request)).await?)
    }
}

fn exit() -> VmExit {
    VmExit {
        expected: true,
        status: "the owner has let go of the host".to_owned(),
        message: String::new(),
        console_tail: Vec::new(),
    }
}
