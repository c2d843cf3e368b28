//! A running `cofferdam run` as the owner that others ask.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use cofferdam_owner::control;
use cofferdam_plan::Spec;
use cofferdam_pod::{ProcessName, Status, Streams};
use cofferdam_task::{Owner, OwnerFailure, Service, Up};
use containerd_shim::protos::{api::Mount, ttrpc::r#async::Server};

use super::SOCKET;
use crate::streams::Pending;

/// The owner: its container was made by the command, and the VM ends with it.
struct RunOwner {
    up: Up,
    /// Where somebody else is to start the container: the streams it is started with.
    pending: Option<Pending>,
}

#[async_trait]
impl Owner for RunOwner {
    async fn up(&self) -> Result<Up, OwnerFailure> {
        Ok(self.up.clone())
    }

    fn there(&self) -> Option<Up> {
        Some(self.up.clone())
    }

    fn prepare(&self, _: &Path, _: &[Mount]) -> Result<Spec, OwnerFailure> {
        Err(
            "this VM is for the container of its `cofferdam run`; start another one with a VM of its own"
                .into(),
        )
    }

    fn clear(&self, _: &Path) -> Result<(), OwnerFailure> {
        Ok(())
    }

    fn streams(&self, name: &ProcessName) -> Option<Streams> {
        let fresh = |status| matches!(status, Status::Created);
        let created = self.up.pod.state(name).is_ok_and(|state| fresh(state.status));
        let pending = self.pending.as_ref().filter(|_| created && name.exec.is_none());
        pending.and_then(Pending::take)
    }

    async fn shut_down(&self) -> Result<(), OwnerFailure> {
        Err("it ends with its container: kill that".into())
    }
}

/// Answers until dropped.
pub(crate) async fn serve(dir: &Path, up: Up, pending: Option<Pending>) -> Result<Server> {
    let listener = control::bind(dir, SOCKET).context("opening the task API's socket")?;
    let service = Arc::new(Service::new(RunOwner { up, pending }));
    cofferdam_task::serve(listener, service)
        .await
        .context("serving the task API")
}
