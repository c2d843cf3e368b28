//! The VM of this process: made in the background from the moment it listens, and given back when it ends.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow};
use cofferdam_backend::Backend;
use cofferdam_network::Adapters;
use cofferdam_owner::{Isolation, Owned};
use cofferdam_qemu::QemuBackend;
use cofferdam_vm::{BootOptions, UtilityVm};

use crate::{address, configuration, forward::Forwarding, network, sizing};

/// The name under which the owner is recorded.
pub(crate) fn owner_name(namespace: &str, group: &str) -> String {
    format!("{namespace}-{group}")
}

/// A VM that runs, and the record that this process owns it.
pub(crate) struct Machine {
    owned: Owned,
    adapters: Adapters,
    forwarding: Option<Forwarding>,
    vm: Arc<UtilityVm>,
    hypervisor: u32,
}

impl Machine {
    /// Takes the name and boots. After a failure nothing is left.
    pub(crate) async fn boot(name: &str, bundle: &Path) -> Result<Self> {
        let spec = address::spec_of(bundle)?;
        let mut config = configuration::machine(&sizing::limits(&spec)?)?;
        let namespace = network::namespace_of(&spec);
        let mut owned = Owned::claim(&configuration::root(), name, bundle, Isolation::Vm)?;
        config.runtime_dir = owned.place_for_sockets();
        let made = async {
            let adapters = network::join(namespace.as_deref(), &mut owned)?;
            config.network = network::nics(&adapters);
            let backend = QemuBackend::new(config).context("preparing the utility VM")?;
            let (vm, hypervisor) = booted(Arc::new(backend), &mut owned, &adapters).await?;
            Ok((adapters, vm, hypervisor))
        };
        match made.await {
            Ok((adapters, vm, hypervisor)) => Ok(Self {
                owned,
                adapters,
                forwarding: Forwarding::begin(namespace.as_deref(), &vm),
                vm,
                hypervisor,
            }),
            Err(error) => match owned.close() {
                Ok(()) => Err(error),
                Err(also) => Err(anyhow!("{error:#}\nand afterwards: {also}")),
            },
        }
    }

    /// The owner's directory.
    pub(crate) fn dir(&self) -> &Path {
        self.owned.dir()
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
        drop(self.forwarding);
        let stopped = self.vm.backend().stop().await.context("ending the utility VM");
        let removed = self.adapters.remove().context("giving the pod's interfaces back");
        // A record that stays leads whoever repairs to what could not be given back.
        let closed = match &removed {
            Ok(()) => self.owned.close().context("ending its owner's record"),
            Err(_) => Ok(()),
        };
        stopped.map(drop).and(removed).and(closed)
    }
}

async fn booted(
    backend: Arc<QemuBackend>,
    owned: &mut Owned,
    adapters: &Adapters,
) -> Result<(Arc<UtilityVm>, u32)> {
    owned.note_directory(backend.runtime_dir().to_owned())?;
    let options = BootOptions::default();
    let booting = UtilityVm::boot_with(backend.clone(), &options, Some(owned.journal())).await;
    let ready = match booting {
        Ok(vm) => ready(vm, &backend, owned, adapters).await,
        Err(error) => Err(anyhow!("{error}")),
    };
    if ready.is_err() {
        // Its own error is the smaller one: the VM never was anybody's.
        let _ = backend.stop().await;
    }
    ready
}

async fn ready(
    vm: Arc<UtilityVm>,
    backend: &QemuBackend,
    owned: &mut Owned,
    adapters: &Adapters,
) -> Result<(Arc<UtilityVm>, u32)> {
    owned.note_hypervisor(backend.process_id())?;
    network::configure(adapters, &vm).await?;
    Ok((vm, backend.process_id().unwrap_or_default()))
}
