//! The task API of a container's owner.

use anyhow::{Context as _, Result, bail};
use cofferdam_owner::{Entry, Root, control};
use containerd_shim::{
    api::{StateRequest, StateResponse},
    protos::{
        shim_async::{Client, TaskClient},
        ttrpc::{self, r#async::transport::Socket, context::Context},
    },
};

use super::SOCKET;

/// A container whose owner answers.
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) client: TaskClient,
    pub(crate) entry: Entry,
}

impl Task {
    /// Connects to the owner of the container `id`.
    pub(crate) fn find(root: &Root, id: &str) -> Result<Self> {
        Self::of(root.entry(id)?)
    }

    /// Connects to the owner whose entry this is.
    pub(crate) fn of(entry: Entry) -> Result<Self> {
        let id = entry.id();
        if !entry.is_alive() {
            bail!("{id} does not run: its owner is gone; `cofferdam fsck --repair {id}` frees what it left");
        }
        let stream = control::connect(entry.dir(), SOCKET)
            .with_context(|| format!("asking the owner of {id}, which may have no VM yet, or none at all"))?;
        let socket = Socket::try_from(stream).context("asking the owner")?;
        let client = TaskClient::new(Client::new(socket));
        Ok(Self { id, client, entry })
    }

    /// How it is.
    pub(crate) async fn state(&self) -> Result<StateResponse> {
        let request = StateRequest {
            id: self.id.clone(),
            ..StateRequest::default()
        };
        told(self.client.state(Context::default(), &request).await)
    }
}

/// An owner's refusal in its own words.
pub(crate) fn told<T>(answer: ttrpc::Result<T>) -> Result<T> {
    answer.map_err(|error| match error {
        ttrpc::Error::RpcStatus(status) => anyhow::anyhow!("{}", status.message()),
        error => anyhow::anyhow!("asking the owner: {error}"),
    })
}
