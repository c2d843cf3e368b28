//! This process as a VM's owner: its answers to those who ask.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use cofferdam_container::Mounts;
use cofferdam_observe::{check, inspect};
use cofferdam_owner::control::{self, Answers, Attached, Attachment, Question};
use cofferdam_pod::{Pod, ProcessName, Status};
use cofferdam_vm::UtilityVm;
use serde_json::Value;

use crate::{mount::Listed, streams::Shared};

/// Answers for a VM until dropped.
pub(crate) fn serve(dir: &Path, owner: Arc<dyn Answers>) -> Result<ServerTask> {
    let listener =
        control::listen(dir).with_context(|| format!("opening the control socket in {}", dir.display()))?;
    Ok(ServerTask(tokio::spawn(control::serve(listener, owner))))
}

/// The control socket's server.
pub(crate) struct ServerTask(tokio::task::JoinHandle<()>);

impl Drop for ServerTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The answers about one VM.
pub(crate) struct VmOwner {
    vm: Arc<UtilityVm>,
    pod: Arc<Pod>,
    /// The container the VM is for.
    id: String,
    /// Its streams, where others can attach to them.
    streams: Option<Shared>,
}

impl VmOwner {
    pub(crate) fn new(pod: Arc<Pod>, id: &str, streams: Option<Shared>) -> Self {
        Self {
            vm: pod.vm().clone(),
            pod,
            id: id.to_owned(),
            streams,
        }
    }

    /// What a running container is given and relieved of.
    fn mounts(&self) -> Result<Arc<Mounts>> {
        let state = self.pod.state(&ProcessName::init(&self.id));
        match state.map(|state| state.status) {
            Ok(Status::Running | Status::Paused) => Ok(self.pod.mounts(&self.id)?),
            Ok(status) => bail!("it {}", status.in_words()),
            Err(_) => bail!("it does not run yet"),
        }
    }

    fn attach(&self, attachment: &Attachment) -> Result<Attached> {
        let streams = self
            .streams
            .as_ref()
            .context("it is not detached: its streams are those of its command")?;
        let input = streams.attach(attachment)?;
        Ok(Attached { input })
    }

    async fn add_mount(&self, entry: Value) -> Result<Listed> {
        let mounts = self.mounts()?;
        let mount: cofferdam_plan::Mount = serde_json::from_value(entry).context("the mount")?;
        // Sources are absolute: whoever asks has another working directory.
        let plan = mounts.plan(&mount, Path::new("/"), &cofferdam_image::check)?;
        Ok(mounts.add(&self.id, &plan).await?.into())
    }

    async fn remove_mount(&self, destination: &str) -> Result<()> {
        Ok(self.mounts()?.remove(destination).await?)
    }

    fn list_mounts(&self) -> Result<Vec<Listed>> {
        let mounts = self.mounts()?.list();
        Ok(mounts.into_iter().map(Listed::from).collect())
    }
}

#[async_trait]
impl Answers for VmOwner {
    async fn answer(&self, question: Question) -> Result<Value, String> {
        let answered = match question {
            Question::Check { repair } => {
                let checked = check(&self.vm, repair).await;
                checked.map(serde_json::to_value).map_err(Into::into)
            }
            Question::MountAdd { mount } => self.add_mount(mount).await.map(serde_json::to_value),
            Question::MountRemove { destination } => {
                self.remove_mount(&destination).await.map(serde_json::to_value)
            }
            Question::Inspect => Ok(serde_json::to_value(inspect(&self.pod).await)),
            Question::MountList => self.list_mounts().map(serde_json::to_value),
            Question::Attach(attachment) => self.attach(&attachment).map(serde_json::to_value),
        };
        match answered {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(format!("{error:#}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_backend::fake::{FakeBackend, FakeOptions};
    use cofferdam_vm::BootOptions;

    use super::*;

    async fn owner() -> (FakeBackend, VmOwner) {
        let backend = FakeBackend::new(FakeOptions::default());
        let vm = UtilityVm::boot(Arc::new(backend.clone()), &BootOptions::default()).await;
        let (pod, _events) = Pod::new(vm.unwrap());
        (backend, VmOwner::new(pod, "web", None))
    }

    #[tokio::test]
    async fn a_mount_needs_a_container_that_runs() {
        let (_backend, owner) = owner().await;
        let mount = serde_json::json!({ "type": "bind", "source": "/", "destination": "/d" });
        let refused = owner.answer(Question::MountAdd { mount }).await.unwrap_err();
        assert_eq!(refused, "it does not run yet");
    }
}
