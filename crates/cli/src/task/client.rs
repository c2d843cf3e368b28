//! The task API of a container's owner.

use anyhow::{Context as _, Result, bail};
use cofferdam_owner::{Entry, Root, control};
use containerd_shim::{
    api::{
        CloseIORequest, DeleteRequest, KillRequest, ResizePtyRequest, StartRequest, StateRequest,
        StateResponse, WaitRequest, WaitResponse,
    },
    protos::{
        shim_async::{Client, TaskClient},
        ttrpc::{self, r#async::transport::Socket, context::Context},
    },
};

use super::SOCKET;
use crate::terminal;

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
        if let Some(ended) = entry.ended() {
            bail!("{id} has ended, with status {}", ended.status);
        }
        if !entry.is_alive() {
            bail!("{id} does not run: its owner is gone; `cofferdam fsck --repair {id}` frees what it left");
        }
        let stream = control::connect(entry.dir(), SOCKET)
            .with_context(|| format!("asking the owner of {id}, which may have no VM yet, or none at all"))?;
        let socket = Socket::try_from(stream).context("asking the owner")?;
        let client = TaskClient::new(Client::new(socket));
        Ok(Self { id, client, entry })
    }

    /// Its first process.
    pub(super) fn init(&self) -> Process<'_> {
        self.process("")
    }

    /// A further one.
    pub(super) fn process<'a>(&'a self, exec_id: &'a str) -> Process<'a> {
        Process { task: self, exec_id }
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

/// A process of a container: its first one, or a further one.
#[derive(Clone, Copy)]
pub(super) struct Process<'a> {
    pub(super) task: &'a Task,
    /// Nothing for the first one.
    pub(super) exec_id: &'a str,
}

impl Process<'_> {
    fn names(self) -> (String, String) {
        (self.task.id.clone(), self.exec_id.to_owned())
    }

    pub(super) async fn start(self) -> Result<()> {
        let (id, exec_id) = self.names();
        let request = StartRequest {
            id,
            exec_id,
            ..StartRequest::default()
        };
        told(self.task.client.start(Context::default(), &request).await).map(drop)
    }

    pub(super) async fn wait(self) -> ttrpc::Result<WaitResponse> {
        let (id, exec_id) = self.names();
        let request = WaitRequest {
            id,
            exec_id,
            ..WaitRequest::default()
        };
        self.task.client.wait(Context::default(), &request).await
    }

    pub(super) async fn kill(self, signal: u32) -> Result<()> {
        let (id, exec_id) = self.names();
        let request = KillRequest {
            id,
            exec_id,
            signal,
            ..KillRequest::default()
        };
        told(self.task.client.kill(Context::default(), &request).await).map(drop)
    }

    /// Takes it out of its container's list. One that has gone with its container is out of it.
    pub(super) async fn delete(self) {
        let (id, exec_id) = self.names();
        let request = DeleteRequest {
            id,
            exec_id,
            ..DeleteRequest::default()
        };
        if let Err(error) = told(self.task.client.delete(Context::default(), &request).await) {
            tracing::debug!("deleting a process: {error:#}");
        }
    }

    /// Passes a signal of our own on. That it cannot be is no reason to end.
    pub(super) async fn pass_on(self, signal: i32) {
        let signal = u32::try_from(signal).unwrap_or_default();
        if let Err(error) = self.kill(signal).await {
            tracing::warn!("not passed on: {error:#}");
        }
    }

    /// Gives its terminal the size of ours.
    pub(super) async fn resize(self) {
        let Some((rows, columns)) = terminal::size() else {
            return;
        };
        let (id, exec_id) = self.names();
        let request = ResizePtyRequest {
            id,
            exec_id,
            height: rows.into(),
            width: columns.into(),
            ..ResizePtyRequest::default()
        };
        if let Err(error) = told(self.task.client.resize_pty(Context::default(), &request).await) {
            tracing::debug!("the terminal's size: {error:#}");
        }
    }

    pub(super) async fn close_input(self) -> Result<()> {
        let (id, exec_id) = self.names();
        let request = CloseIORequest {
            id,
            exec_id,
            stdin: true,
            ..CloseIORequest::default()
        };
        told(self.task.client.close_io(Context::default(), &request).await).map(drop)
    }
}

/// An owner's refusal in its own words.
pub(crate) fn told<T>(answer: ttrpc::Result<T>) -> Result<T> {
    answer.map_err(|error| match error {
        ttrpc::Error::RpcStatus(status) => anyhow::anyhow!("{}", status.message()),
        error => anyhow::anyhow!("asking the owner: {error}"),
    })
}
