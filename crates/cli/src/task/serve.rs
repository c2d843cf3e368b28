//! A running `cofferdam run` as the owner that others ask.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use cofferdam_owner::control;
use cofferdam_plan::Spec;
use cofferdam_task::{Owner, OwnerFailure, Service, Up};
use containerd_shim::protos::{api::Mount, ttrpc::r#async::Server};

use super::SOCKET;

/// The owner: its container was made by the command, and the VM ends with it.
struct RunOwner(Up);

#[async_trait]
impl Owner for RunOwner {
    async fn up(&self) -> Result<Up, OwnerFailure> {
        Ok(self.0.clone())
    }

    fn there(&self) -> Option<Up> {
        Some(self.0.clone())
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

    async fn shut_down(&self) -> Result<(), OwnerFailure> {
        Err("it ends with its container: kill that".into())
    }
}

/// Answers until dropped.
pub(crate) async fn serve(dir: &Path, up: Up) -> Result<Server> {
    let listener = control::bind(dir, SOCKET).context("opening the task API's socket")?;
    let service = Arc::new(Service::new(RunOwner(up)));
    cofferdam_task::serve(listener, service)
        .await
        .context("serving the task API")
}
