//! The VM of this process: made in the background from the moment it listens, and given back when it ends.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow};
use cofferdam_backend::Backend;
use cofferdam_owner::{Isolation, Owned};
use cofferdam_qemu::QemuBackend;
use cofferdam_vm::{BootOptions, UtilityVm};

use crate::configuration;

/// The name under which the owner is recorded.
pub(crate) fn owner_name(namespace: &str, group: &str) -> String {
    format!("{namespace}-{group}")
}

/// A VM that runs, and the record that this process owns it.
pub(crate) struct Machine {
    owned: Owned,
    vm: Arc<UtilityVm>,
    hypervisor: u32,
}

impl Machine {
    /// Takes the name and boots. After a failure nothing is left.
    pub(crate) async fn boot(name: &str, bundle: &Path) -> Result<Self> {
        let mut config = configuration::machine()?;
        let mut owned = Owned::claim(&configuration::root(), name, bundle, Isolation::Vm)?;
        config.runtime_dir = owned.place_for_sockets();
        let booted = match QemuBackend::new(config) {
            Ok(backend) => booted(Arc::new(backend), &mut owned).await,
            Err(error) => Err(anyhow!("preparing the utility VM: {error}")),
        };
        match booted {
            Ok((vm, hypervisor)) => Ok(Self {
                owned,
                vm,
                hypervisor,
            }),
            Err(error) => match owned.close() {
                Ok(()) => Err(error),
                Err(also) => Err(anyhow!("{error:#}\nand afterwards: {also}")),
            },
        }
    }

    /// The VM.
    pub(crate) fn vm(&self) -> &Arc<UtilityVm> {
        &self.vm
    }

    /// The process number of the hypervisor, which stands for every process in the VM.
    pub(crate) fn hypervisor(&self) -> u32 {
        self.hypervisor
    }

    /// Ends the VM, which holds nothing any more, and the record.
    pub(crate) async fn end(self) -> Result<()> {
        let stopped = self.vm.backend().stop().await.context("ending the utility VM");
        let closed = self.owned.close().context("ending its owner's record");
        stopped.and(closed)
    }
}

async fn booted(backend: Arc<QemuBackend>, owned: &mut Owned) -> Result<(Arc<UtilityVm>, u32)> {
    owned.note_directory(backend.runtime_dir().to_owned())?;
    let options = BootOptions::default();
    let booting = UtilityVm::boot_with(backend.clone(), &options, Some(owned.journal())).await;
    let noted = match booting {
        Ok(vm) => owned
            .note_hypervisor(backend.process_id())
            .map(|()| (vm, backend.process_id().unwrap_or_default()))
            .map_err(anyhow::Error::from),
        Err(error) => Err(anyhow!("{error}")),
    };
    if noted.is_err() {
        // Its own error is the smaller one: the VM never was anybody's.
        let _ = backend.stop().await;
    }
    noted
}
