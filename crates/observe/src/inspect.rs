//! A pod looked at: its containers, and its VM's slots.

use std::time::Duration;

use cofferdam_pod::{ContainerView, Pod, ProcessView, Status};
use cofferdam_protocol::message::GuestMount;
use tokio::time::timeout;

use crate::{
    devices::{device, holds},
    document::{ContainerDocument, Machine, ProcessDocument},
    rfc3339,
};

/// For the guest to tell its mounts. A guest that does not must not keep the host's knowledge from whoever asks.
const GUEST_LIMIT: Duration = Duration::from_secs(5);

/// The containers of a pod, and every slot of its VM's ledger with those who hold it, as they are at this moment.
pub async fn inspect(pod: &Pod) -> Machine {
    let guest = guest_mounts(pod).await;
    let containers = pod.inspect();
    let (view, holds) = {
        let ledger = pod.vm().driver().ledger();
        let guest_path = |lease| ledger.guest_path(lease).map(str::to_owned);
        let of = |container: &ContainerView| holds(&container.id, &container.held, guest_path);
        let holds: Vec<_> = containers.iter().flat_map(of).collect();
        (ledger.view(), holds)
    };
    let devices = view.slots.into_iter();
    Machine {
        containers: containers.into_iter().map(container).collect(),
        scsi: view.scsi,
        vpmem: view.vpmem,
        devices: devices
            .map(|slot| device(slot, &holds, guest.as_deref()))
            .collect(),
    }
}

async fn guest_mounts(pod: &Pod) -> Option<Vec<GuestMount>> {
    match timeout(GUEST_LIMIT, pod.vm().bridge().guest_mounts()).await {
        Ok(Ok(mounts)) => Some(mounts.listed),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the guest does not tell its mounts");
            None
        }
        Err(_) => {
            tracing::debug!("the guest does not tell its mounts in time");
            None
        }
    }
}

fn container(view: ContainerView) -> ContainerDocument {
    let execs = view.execs.into_iter();
    ContainerDocument {
        id: view.id,
        init: process(view.init),
        created_at: rfc3339(view.created_at),
        bundle: view.bundle.to_string_lossy().into_owned(),
        guest_root: view.root,
        terminal: view.terminal,
        oci_version: view.oci_version,
        annotations: view.annotations,
        execs: execs.map(|(id, view)| (id, process(view))).collect(),
    }
}

fn process(view: ProcessView) -> ProcessDocument {
    let status = match view.status {
        Status::Created => "created",
        Status::Starting => "starting",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Stopped(_) => "stopped",
    };
    let exit = match view.status {
        Status::Stopped(exit) => Some(exit),
        _ => None,
    };
    ProcessDocument {
        status: status.to_owned(),
        started_at: view.started_at.map(rfc3339),
        finished_at: exit.map(|exit| rfc3339(exit.at)),
        exit_status: exit.map(|exit| exit.status),
    }
}
